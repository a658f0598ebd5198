{{/* The names of the operator and its Service are a contract: its certificate is for mcpmesh-operator.<namespace>.svc */}}
{{- define "mcpmesh.name" -}}mcpmesh-operator{{- end }}

{{- define "mcpmesh.selector" -}}
app.kubernetes.io/name: mcpmesh-operator
{{- end }}

{{- define "mcpmesh.labels" -}}
{{ include "mcpmesh.selector" . }}
app.kubernetes.io/part-of: mcpmesh
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end }}

{{/* An image of ours: a dictionary of image and root. */}}
{{- define "mcpmesh.image" -}}
{{- if .image.digest -}}
{{ .image.repository }}@{{ .image.digest }}
{{- else -}}
{{ .image.repository }}:{{ .image.tag | default .root.Chart.AppVersion }}
{{- end -}}
{{- end }}

{{/* Where the operator reads objects: its own namespace (mesh policies) and those to be watched. JSON. */}}
{{- define "mcpmesh.namespaces" -}}
{{- prepend .Values.watchNamespaces .Release.Namespace | uniq | sortAlpha | toJson -}}
{{- end }}
