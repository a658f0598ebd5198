{{/* What the operator needs in each namespace that it watches. No wildcard, and nothing that grants rights. */}}
{{- define "mcpmesh.rules" -}}
- apiGroups: [mcpmesh.io]
  resources: [mcpservers, mcpgateways, mcppolicies]
  verbs: [get, list, watch]
- apiGroups: [mcpmesh.io]
  resources: [mcpservers/status, mcpgateways/status, mcppolicies/status]
  verbs: [get, patch, update]
# Keys of callers and credentials of servers are Secrets of their namespaces; only metadata is watched, and only those
# that an object names are read. Fleets get a Secret with their keys, and one with a copy of their configuration.
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, list, watch, create, patch]
# ConfigMaps are read as Secrets are: those that a server takes variables from.
- apiGroups: [""]
  resources: [services, serviceaccounts, configmaps]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [get, list, watch]
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [autoscaling]
  resources: [horizontalpodautoscalers]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [gateway.networking.k8s.io]
  resources: [httproutes]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end }}

{{/* A Role or ClusterRole binding's last lines: the operator's account. */}}
{{- define "mcpmesh.subject" -}}
subjects:
  - kind: ServiceAccount
    name: {{ include "mcpmesh.name" . }}
    namespace: {{ .Release.Namespace }}
{{- end }}
