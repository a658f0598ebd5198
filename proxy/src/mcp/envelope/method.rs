//! The methods of all revisions, each named once.

use super::super::era::Era;

/// Which eras have a method.
#[derive(Clone, Copy, PartialEq, Eq)]
enum In {
    Both,
    Modern,
    Legacy,
}

macro_rules! methods {
    ($($variant:ident $text:literal $era:ident,)*) => {
        /// A JSON-RPC method of MCP, client's or server's.
        #[derive(Debug, Clone, PartialEq, Eq, Hash)]
        pub enum Method {
            $(#[doc = concat!("`", $text, "`")] $variant,)*
            /// Any other text.
            Other(Box<str>),
        }

        impl Method {
            /// The text on the wire.
            #[must_use]
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => $text,)*
                    Self::Other(text) => text,
                }
            }

            /// The text for metrics: a bounded set, `_other` for what is not known.
            #[must_use]
            pub fn label(&self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                    Self::Other(_) => "_other",
                }
            }

            fn eras(&self) -> Option<In> {
                match self {
                    $(Self::$variant => Some(In::$era),)*
                    Self::Other(_) => None,
                }
            }
        }

        impl From<&str> for Method {
            fn from(text: &str) -> Self {
                match text {
                    $($text => Self::$variant,)*
                    other => Self::Other(other.into()),
                }
            }
        }
    };
}

methods! {
    Initialize "initialize" Legacy,
    ServerDiscover "server/discover" Modern,
    Ping "ping" Legacy,
    ToolsList "tools/list" Both,
    ToolsCall "tools/call" Both,
    PromptsList "prompts/list" Both,
    PromptsGet "prompts/get" Both,
    ResourcesList "resources/list" Both,
    ResourcesTemplatesList "resources/templates/list" Both,
    ResourcesRead "resources/read" Both,
    ResourcesSubscribe "resources/subscribe" Legacy,
    ResourcesUnsubscribe "resources/unsubscribe" Legacy,
    CompletionComplete "completion/complete" Both,
    LoggingSetLevel "logging/setLevel" Legacy,
    SubscriptionsListen "subscriptions/listen" Modern,
    TasksGet "tasks/get" Both,
    TasksUpdate "tasks/update" Modern,
    TasksCancel "tasks/cancel" Both,
    TasksResult "tasks/result" Legacy,
    TasksList "tasks/list" Legacy,
    RootsList "roots/list" Both,
    SamplingCreateMessage "sampling/createMessage" Both,
    ElicitationCreate "elicitation/create" Both,
    NotificationsInitialized "notifications/initialized" Legacy,
    NotificationsCancelled "notifications/cancelled" Both,
    NotificationsProgress "notifications/progress" Both,
    NotificationsMessage "notifications/message" Both,
    NotificationsRootsListChanged "notifications/roots/list_changed" Legacy,
    NotificationsToolsListChanged "notifications/tools/list_changed" Both,
    NotificationsPromptsListChanged "notifications/prompts/list_changed" Both,
    NotificationsResourcesListChanged "notifications/resources/list_changed" Both,
    NotificationsResourcesUpdated "notifications/resources/updated" Both,
    NotificationsSubscriptionsAcknowledged "notifications/subscriptions/acknowledged" Modern,
    NotificationsElicitationComplete "notifications/elicitation/complete" Legacy,
    NotificationsTasks "notifications/tasks" Modern,
    NotificationsTasksStatus "notifications/tasks/status" Legacy,
}

impl Method {
    /// Does this era have the method? What is not known belongs to none.
    #[must_use]
    pub fn is_in(&self, era: Era) -> bool {
        match self.eras() {
            Some(In::Both) => true,
            Some(In::Modern) => era == Era::Modern,
            Some(In::Legacy) => era == Era::Legacy,
            None => false,
        }
    }

    /// The `params` member that `Mcp-Name` mirrors (2026-07-28, Streamable HTTP, request metadata).
    #[must_use]
    pub fn name_member(&self) -> Option<&'static str> {
        match self {
            Self::ToolsCall | Self::PromptsGet => Some("name"),
            Self::ResourcesRead => Some("uri"),
            Self::TasksGet | Self::TasksUpdate | Self::TasksCancel => Some("taskId"),
            _ => None,
        }
    }

    /// Does a client send it, and expect an answer?
    #[must_use]
    pub fn is_client_request(&self) -> bool {
        !self.as_str().starts_with("notifications/")
            && !matches!(
                self,
                Self::RootsList | Self::SamplingCreateMessage | Self::ElicitationCreate | Self::Other(_)
            )
    }
}
