//! What can go wrong in a command, and the exit code each failure has.
//!
//! Scripts decide by the exit code, people by the text: both are part of the interface and covered by golden files.

use std::{fmt::Display, path::Path};

use rackhand_schema::{ErrorCode, Problem, may_hold_password};
use thiserror::Error;

pub type Result<T, E = Failure> = std::result::Result<T, E>;

/// Exit codes, as `--help` lists them.
pub mod exit {
    pub const FAILURE: u8 = 1;
    pub const USAGE: u8 = 2;
    pub const NOT_FOUND: u8 = 3;
    pub const NOT_AUTHENTICATED: u8 = 4;
    pub const FORBIDDEN: u8 = 5;
    pub const CONFLICT: u8 = 6;
    pub const PARTIAL: u8 = 7;
    pub const TIMEOUT: u8 = 8;
    pub const INTERRUPTED: u8 = 130;
}

/// The exit codes as text, for [`help`].
macro_rules! exit_codes {
    () => {
        "\
Exit codes:
  0    done
  1    failure
  2    wrong usage
  3    not found
  4    not signed in, or the credential was refused
  5    signed in, but another role is needed
  6    conflict: someone changed it, or the plan is stale
  7    partial success: some servers failed, were refused or were blocked
  8    timed out
  130  interrupted"
    };
}

/// The end of a help text: examples, without the name of this command, then the exit codes.
macro_rules! help {
    ($($example:literal),+ $(,)?) => {
        concat!(
            "Examples:\n",
            $("  rackhand ", $example, "\n",)+
            "\n",
            $crate::error::exit_codes!()
        )
    };
}

pub(crate) use {exit_codes, help};

/// Printed at the end of every help text without examples.
pub const EXIT_CODES: &str = exit_codes!();

#[derive(Debug, Error)]
pub enum Failure {
    /// The command line makes no sense.
    #[error("{0}")]
    Usage(String),
    /// The control plane answered with a problem.
    #[error("{}", problem_text(.0))]
    Problem(Box<Problem>),
    #[error("cannot reach {url}: {detail}")]
    Unreachable { url: String, detail: String },
    /// The port is closed.
    #[error("cannot reach {0}: connection refused")]
    NotListening(String),
    #[error("{0} did not answer in time")]
    NoAnswer(String),
    #[error("{url} does not look like a Rackhand server: {detail}")]
    Foreign { url: String, detail: String },
    /// With the control plane that is meant, where one is.
    #[error("not signed in{}; run `rackhand login {}`", .0.as_deref().map_or_else(String::new, |server| format!(" to {server}")), .0.as_deref().unwrap_or("URL"))]
    NotSignedIn(Option<String>),
    #[error("there is no {what} `{name}`")]
    NotFound { what: &'static str, name: String },
    /// No one thing is missing: the whole choice is empty.
    #[error("{0}")]
    NothingChosen(String),
    #[error("{0}")]
    Conflict(String),
    #[error("{0}")]
    Refused(String),
    #[error("{0}")]
    Partial(String),
    #[error("{0}")]
    TimedOut(String),
    #[error("interrupted")]
    Interrupted,
    /// The same, and what goes on without this command.
    #[error("interrupted; {0}")]
    Left(String),
    #[error("{0}")]
    Other(String),
    #[error("{context}: {source}")]
    File { context: String, source: std::io::Error },
}

impl Failure {
    pub fn file(context: impl Into<String>, source: std::io::Error) -> Self {
        Self::File { context: context.into(), source }
    }

    /// A file that `option` names cannot be read. The wrong file is wrong usage, as is what stands in it.
    pub fn input(option: &str, path: &Path, source: std::io::Error) -> Self {
        use std::io::ErrorKind;
        let path = path.display();
        match source.kind() {
            ErrorKind::NotFound => Self::Usage(format!("{option} {path}: there is no such file")),
            ErrorKind::IsADirectory => Self::Usage(format!("{option} {path}: it is a directory")),
            ErrorKind::InvalidData => Self::Usage(format!("{option} {path}: it is not UTF-8 text")),
            _ => Self::file(format!("{option} {path}: cannot be read"), source),
        }
    }

    /// What is wrong with an address that was given.
    pub fn address(address: &str, why: impl Display) -> Self {
        let shown = if may_hold_password(address) { "the address" } else { address };
        Self::Usage(format!("{shown}: {why}"))
    }

    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => exit::USAGE,
            Self::NotSignedIn(_) | Self::Refused(_) => exit::NOT_AUTHENTICATED,
            Self::NotFound { .. } | Self::NothingChosen(_) => exit::NOT_FOUND,
            Self::Conflict(_) => exit::CONFLICT,
            Self::Partial(_) => exit::PARTIAL,
            Self::TimedOut(_) | Self::NoAnswer(_) => exit::TIMEOUT,
            Self::Interrupted | Self::Left(_) => exit::INTERRUPTED,
            Self::Problem(problem) if problem.code == ErrorCode::PlanEmpty.as_str() => exit::PARTIAL,
            Self::Problem(problem) => match problem.status {
                401 => exit::NOT_AUTHENTICATED,
                403 => exit::FORBIDDEN,
                404 => exit::NOT_FOUND,
                409 | 412 => exit::CONFLICT,
                408 | 504 => exit::TIMEOUT,
                _ if !problem.fields.is_empty() => exit::USAGE,
                _ => exit::FAILURE,
            },
            _ => exit::FAILURE,
        }
    }

    /// Whether the same request may succeed a little later.
    pub fn passes(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::NotListening(_) | Self::NoAnswer(_) => true,
            Self::Problem(problem) => matches!(problem.status, 429 | 502..=504),
            _ => false,
        }
    }

    /// The page about the code of a refusal; with it the control plane that refused.
    pub fn page(&self) -> Option<&str> {
        match self {
            Self::Problem(problem) => server_of(problem).map(|_| problem.kind.as_str()),
            _ => None,
        }
    }

    /// What could be done next, when the text itself does not say.
    pub fn hint(&self) -> Option<String> {
        let problem = match self {
            Self::Problem(problem) => problem,
            Self::NotFound { what: "user", .. } => {
                let text =
                    "`rackhand users list` shows the ones you may see; `rackhand users add` makes an account";
                return Some(text.to_owned());
            }
            Self::NotFound { what: "run", .. } => {
                return Some("`rackhand runs list JOB -o wide` shows them".to_owned());
            }
            Self::NotListening(_) => {
                return Some("check that it is running, and that host and port are right".to_owned());
            }
            Self::NotFound { what, .. } => {
                return Some(format!("`rackhand {what}s list` shows the ones you may see"));
            }
            _ => return None,
        };
        match ErrorCode::parse(&problem.code) {
            Some(ErrorCode::NotSignedIn | ErrorCode::SessionEnded | ErrorCode::RefreshReused) => {
                Some(format!("run `rackhand login {}` again", server_of(problem).unwrap_or("URL")))
            }
            Some(ErrorCode::SiteInUse) => {
                Some("`rackhand sites set SITE --hardware-paused true` pauses them".to_owned())
            }
            Some(ErrorCode::PlanStale) => {
                Some("read the plan again with `rackhand jobs show JOB`, then approve its digest".to_owned())
            }
            Some(_) => None,
            None => Some(
                "this server knows error codes that this client does not: compare `rackhand version`"
                    .to_owned(),
            ),
        }
    }
}

/// The control plane whose answer this is.
fn server_of(problem: &Problem) -> Option<&str> {
    problem.kind.strip_suffix(&problem.code)?.strip_suffix("/errors/").filter(|server| !server.is_empty())
}

/// Where a text stops being JSON, and why, in words for who wrote it.
pub fn json_trouble(error: &serde_json::Error) -> String {
    let place = format!("line {}, column {}", error.line(), error.column());
    let said = error.to_string();
    let words = said.split(" at line ").next().unwrap_or_default();
    match words {
        _ if error.is_eof() => format!("it ends too early, at {place}"),
        "expected ident" | "expected value" => {
            format!("{place} requires text in quotes, a number, a list or an object")
        }
        words => format!("{words} at {place}"),
    }
}

/// Fields of the API, and what of the command line fills them.
const OPTIONS: [(&str, &str); 20] = [
    ("policy.max_parallel", "--max-parallel"),
    ("policy.pause_after_failures", "--pause-after-failures"),
    ("policy.start_after", "--start-after"),
    ("params.packages", "--package"),
    ("targets", "--servers"),
    ("reason", "--reason"),
    ("digest", "--digest"),
    ("config.lease_ttl_ms", "--lease-ttl-ms"),
    ("config.max_mutating_runs", "--max-mutating-runs"),
    ("bmc_url", "--bmc"),
    ("ipmi", "--ipmi"),
    ("spki_sha256", "--pin"),
    ("tags", "--tag"),
    ("email", "the e-mail address"),
    ("present", "the present password"),
    ("new", "the new password"),
    ("token", "the token of the link"),
    ("password", "the password"),
    ("name", "the name"),
    ("cursor", "the cursor"),
];

/// A field as the person who typed the command knows it. What stands deeper in it follows in brackets.
pub fn typed(field: &str) -> String {
    let option = OPTIONS.iter().find_map(|(name, option)| {
        let rest = field.strip_prefix(name)?;
        (rest.is_empty() || rest.starts_with(['.', '['])).then_some((option, rest.trim_start_matches('.')))
    });
    match option {
        Some((option, "")) => (*option).to_owned(),
        Some((option, rest)) => format!("{option} ({rest})"),
        None => field.to_owned(),
    }
}

fn problem_text(problem: &Problem) -> String {
    // Where the detail names the role, the title says nothing more.
    let told = problem.needs_role.as_ref().is_some_and(|role| problem.detail.contains(role.as_str()));
    let mut text = match told {
        true => match problem.detail.rfind(". Ask an admin") {
            Some(end) => format!("{} [{}]{}", &problem.detail[..end], problem.code, &problem.detail[end..]),
            None => format!("{} [{}]", problem.detail.trim_end_matches('.'), problem.code),
        },
        false => format!("{} [{}]", problem.title, problem.code),
    };
    // A detail is a sentence, a title has no full stop.
    if !told && !problem.detail.is_empty() && problem.detail.trim_end_matches('.') != problem.title {
        text.push_str(": ");
        text.push_str(&problem.detail);
    }
    if let Some(role) = problem.needs_role.as_ref().filter(|_| !told) {
        text.push_str(&format!(" (needs the role {role})"));
    }
    for field in &problem.fields {
        text.push_str(&format!("\n  {}: {}", typed(&field.field), field.detail));
    }
    if let Some(trace) = &problem.trace_id {
        text.push_str(&format!("\n  trace {trace}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_status_has_its_exit_code() {
        let code = |code| Failure::Problem(Box::new(Problem::new(code, "x"))).exit_code();
        assert_eq!(code(ErrorCode::NotSignedIn), 4);
        assert_eq!(code(ErrorCode::ForbiddenRole), 5);
        assert_eq!(code(ErrorCode::NotFound), 3);
        assert_eq!(code(ErrorCode::PlanStale), 6);
        assert_eq!(code(ErrorCode::VersionConflict), 6);
        assert_eq!(code(ErrorCode::PlanEmpty), 7, "as a plan that leaves some servers blocked");
        assert_eq!(code(ErrorCode::InvalidRequest), 1);
        assert_eq!(code(ErrorCode::Internal), 1);
    }

    #[test]
    fn a_detail_that_repeats_the_title_is_said_once() {
        let problem = Problem::new(ErrorCode::InvalidCredentials, "E-mail or password is wrong.");
        let said = Failure::Problem(Box::new(problem)).to_string();
        assert_eq!(said, "E-mail or password is wrong [invalid-credentials]");
    }

    #[test]
    fn a_missing_thing_names_the_list_to_look_in() {
        for what in ["site", "server", "executor", "credential", "user", "job"] {
            let hint = Failure::NotFound { what, name: "x".to_owned() }.hint().unwrap();
            assert!(hint.starts_with(&format!("`rackhand {what}s list`")), "{hint}");
        }
    }

    #[test]
    fn a_problem_reads_like_a_sentence() {
        let mut problem = Problem::new(ErrorCode::ForbiddenRole, "Approving needs more than viewer.");
        problem.needs_role = Some("operator".to_owned());
        problem.trace_id = Some("0af7651916cd43dd8448eb211c80319c".to_owned());
        insta::assert_snapshot!(Failure::Problem(Box::new(problem.clone())).to_string(), @r"
        This needs another role [forbidden-role]: Approving needs more than viewer. (needs the role operator)
          trace 0af7651916cd43dd8448eb211c80319c
        ");
        problem.detail =
            "This needs the role operator in site lab; Ben is viewer there. Ask an admin of lab.".to_owned();
        insta::assert_snapshot!(Failure::Problem(Box::new(problem)).to_string(), @r"
        This needs the role operator in site lab; Ben is viewer there [forbidden-role]. Ask an admin of lab.
          trace 0af7651916cd43dd8448eb211c80319c
        ");
    }

    #[test]
    fn a_refused_field_is_named_as_it_was_typed() {
        let mut problem = Problem::new(ErrorCode::InvalidRequest, "");
        for field in ["policy.max_parallel", "params.packages[any].url", "targets", "tagsy"] {
            let detail = "wrong".to_owned();
            problem.fields.push(rackhand_schema::error::FieldProblem { field: field.to_owned(), detail });
        }
        let failure = Failure::Problem(Box::new(problem));
        assert_eq!(failure.exit_code(), exit::USAGE);
        insta::assert_snapshot!(failure.to_string(), @r"
        The request is not valid [invalid-request]
          --max-parallel: wrong
          --package ([any].url): wrong
          --servers: wrong
          tagsy: wrong
        ");
    }
}
