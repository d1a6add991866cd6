//! One error type: where it happened, what the service said, and what to do about it.
//!
//! [`Error::class`] is the decision callers act on; everything else is for people and evidence. Nothing in here
//! holds a header, a request body or a password.

use std::{fmt, time::Duration};

use http::Method;

use crate::{
    auth::GateDenied,
    classify::{self, Class},
    document::{Evidence, Message, without_query},
    transport::{NotSent, TransportError},
};

/// A failed operation on a Redfish service.
#[derive(Clone, Debug)]
pub struct Error(Box<Inner>);

#[derive(Clone, Debug)]
struct Inner {
    server: String,
    method: Method,
    path: String,
    mutates: bool,
    problem: Problem,
}

/// What went wrong.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// There is no answer.
    #[error("no usable answer")]
    Transport(#[source] TransportError),
    /// The service answered with an error status.
    #[error("{}", describe(*status, messages.first()))]
    Answer {
        /// HTTP status.
        status: u16,
        /// The messages of the error body, most telling first; empty when the body holds none.
        messages: Vec<Message>,
        /// `Retry-After` in seconds, when sent.
        retry_after: Option<Duration>,
        /// The answer as it came.
        evidence: Evidence,
    },
    /// The service did not take the login. Only the id of its message is kept: texts repeat what was sent, such as
    /// `Base.PropertyValueFormatError`, whose first argument is the value (DSP8011).
    #[error("the login was refused: {}", describe_login(*status, id.as_deref()))]
    Login {
        /// HTTP status.
        status: u16,
        /// Short id of the message that decided the class.
        id: Option<String>,
        /// What to do about it.
        class: Class,
    },
    /// The gate did not allow to present the password; nothing was sent.
    #[error("the password may not be presented now")]
    Gate(#[source] GateDenied),
    /// The answer is not what the protocol promises.
    #[error("the answer is not usable: {what}")]
    Malformed {
        /// What is missing or wrong.
        what: String,
        /// The answer as it came.
        evidence: Evidence,
    },
    /// The service does not declare what the operation needs. Nothing was changed.
    #[error("the service does not declare {what}")]
    NotDeclared {
        /// The missing link, action or value.
        what: String,
    },
    /// The service declares neither Dell's queue of jobs nor a job service nor a task service. Nothing was changed.
    #[error("the service declares no job queue")]
    NoQueue,
    /// The request would be malformed. Nothing was sent.
    #[error("the request cannot be made: {what}")]
    Request {
        /// What is wrong with it.
        what: String,
    },
    /// The service holds several systems and none was selected. Nothing was changed.
    #[error(
        "the service holds {} systems: {}. Name one in the server's address, such as https://HOST{}",
        members.len(),
        members.iter().take(16).map(String::as_str).collect::<Vec<_>>().join(", "),
        members.first().map_or("/redfish/v1/Systems/ID", String::as_str)
    )]
    SystemNotSelected {
        /// Paths of the systems.
        members: Vec<String>,
    },
}

fn describe(status: u16, message: Option<&Message>) -> String {
    match message {
        Some(Message { id: Some(id), text, .. }) if text.is_empty() => format!("status {status}, {id}"),
        // The account to change is its only argument (DSP8011) and nowhere in the text.
        Some(Message { id: Some(id), text, args, .. }) if id.ends_with(".PasswordChangeRequired") => {
            format!("status {status}, {id}: {text} ({})", args.join(", "))
        }
        Some(Message { id: Some(id), text, .. }) => format!("status {status}, {id}: {text}"),
        Some(Message { id: None, text, .. }) if !text.is_empty() => format!("status {status}: {text}"),
        _ if matches!(status, 300..=399) => format!("status {status}, a redirect that is not followed"),
        _ => format!("status {status}"),
    }
}

fn describe_login(status: u16, id: Option<&str>) -> String {
    id.map_or_else(|| format!("status {status}"), |id| format!("status {status}, {id}"))
}

impl Error {
    pub(crate) fn new(server: &str, method: &Method, path: &str, mutates: bool, problem: Problem) -> Self {
        let (server, path) = (server.to_owned(), without_query(path).to_owned());
        Self(Box::new(Inner { server, method: method.clone(), path, mutates, problem }))
    }

    /// What to do about it. See [`Class`].
    #[must_use]
    pub fn class(&self) -> Class {
        let reading = !self.0.mutates;
        match &self.0.problem {
            Problem::Transport(TransportError::PinMismatch(_)) => Class::Untrusted,
            Problem::Transport(TransportError::NotSent { why: NotSent::Invalid(_) }) => Class::Permanent,
            Problem::Transport(TransportError::NotSent { .. }) => Class::NotSent,
            Problem::Transport(_) if !reading => Class::Ambiguous,
            Problem::Transport(TransportError::TooLarge { .. }) => Class::Permanent,
            Problem::Transport(_) => Class::Transient { retry_after: None },
            Problem::Answer { status, messages, retry_after, .. } => {
                let verdict = classify::classify(*status, messages, *retry_after);
                let decided_by = verdict.message.and_then(|at| messages.get(at));
                if !reading && classify::broke_down(*status, decided_by, *retry_after) {
                    return Class::Ambiguous;
                }
                match verdict.class {
                    // Who was not let in is told so by `Problem::Login`.
                    Class::Auth => Class::Forbidden,
                    class => class,
                }
            }
            Problem::Login { class, .. } => *class,
            Problem::Gate(denied) => Class::AuthWithheld { retry_after: denied.retry_after },
            Problem::Malformed { .. } if !reading => Class::Ambiguous,
            Problem::Malformed { .. } => Class::Transient { retry_after: None },
            Problem::NotDeclared { .. } | Problem::NoQueue => Class::Unsupported,
            Problem::Request { .. } | Problem::SystemNotSelected { .. } => Class::Refused,
        }
    }

    /// What went wrong, in full.
    #[must_use]
    pub fn problem(&self) -> &Problem {
        &self.0.problem
    }

    /// Address of the service, host and port.
    #[must_use]
    pub fn server(&self) -> &str {
        &self.0.server
    }

    /// The method of the failed request.
    #[must_use]
    pub fn method(&self) -> &Method {
        &self.0.method
    }

    /// The path of the failed request, without query.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.0.path
    }

    /// The status, when there was an answer.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match &self.0.problem {
            Problem::Answer { status, .. }
            | Problem::Login { status, .. }
            | Problem::Transport(TransportError::TooLarge { status, .. }) => Some(*status),
            Problem::Malformed { evidence, .. } => Some(evidence.status),
            _ => None,
        }
    }

    /// Short id of the message that decided the class, such as `SWC0700`.
    #[must_use]
    pub fn message_id(&self) -> Option<&str> {
        match &self.0.problem {
            Problem::Login { id, .. } => id.as_deref(),
            _ => self.deciding_message().and_then(Message::short_id),
        }
    }

    /// What the service said in words; empty when it said nothing.
    #[must_use]
    pub fn text(&self) -> &str {
        self.deciding_message().map_or("", |message| message.text.as_str())
    }

    /// When to try again, when the service or the rule for its message says so.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.class().retry_after()
    }

    /// The answer as it came.
    #[must_use]
    pub fn evidence(&self) -> Option<&Evidence> {
        match &self.0.problem {
            Problem::Answer { evidence, .. } | Problem::Malformed { evidence, .. } => Some(evidence),
            _ => None,
        }
    }

    fn deciding_message(&self) -> Option<&Message> {
        let Problem::Answer { status, messages, retry_after, .. } = &self.0.problem else { return None };
        let decided_by = classify::classify(*status, messages, *retry_after).message;
        decided_by.and_then(|at| messages.get(at)).or_else(|| messages.first())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { server, method, path, problem, .. } = &*self.0;
        write!(f, "{method} {path} at {server}: {problem}")
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(&self.0.problem)
    }
}
