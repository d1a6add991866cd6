//! The command line: `noun verb [value] [flags]`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

use crate::{
    audit, auth, bmc, credentials,
    error::{EXIT_CODES, help},
    events, executors, jobs,
    output::{Format, Output},
    runs, servers, sites, users,
};

#[derive(Debug, Parser)]
#[command(
    name = "rackhand",
    version,
    about = "Operates bare-metal fleets",
    after_help = EXIT_CODES,
    arg_required_else_help = true,
    propagate_version = false
)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// Apart from a command's own options, which would be hard to find among them.
const GLOBAL: &str = "Options of every command";

#[derive(Clone, Debug, Args)]
pub struct Global {
    /// Address of the control plane; the one signed in to last if not given.
    #[arg(long, help_heading = GLOBAL, global = true, value_name = "URL", env = "RACKHAND_API")]
    pub api: Option<String>,
    /// PEM file of the CAs to trust for the control plane, instead of the system's.
    #[arg(long, help_heading = GLOBAL, global = true, value_name = "FILE", env = "RACKHAND_CA_FILE")]
    pub ca_file: Option<PathBuf>,
    /// Form of the data on stdout: table, wide (all columns), csv (absent values are empty), json (as of the API) or
    /// name (one per line).
    #[arg(short, long, help_heading = GLOBAL, global = true, value_enum, value_name = "FORM", default_value_t,
        hide_possible_values = true)]
    output: Format,
    /// The same as `-o json`.
    #[arg(long, help_heading = GLOBAL, global = true, conflicts_with = "output")]
    json: bool,
}

impl Global {
    /// The same for this control plane.
    pub fn with_api(&self, url: String) -> Self {
        Self { api: Some(url), ..self.clone() }
    }

    pub fn output(&self) -> Output {
        Output::new(if self.json { Format::Json } else { self.output })
    }
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Sign in to a control plane.
    #[command(after_help = help!("login https://rackhand.example --email ada@rackhand.example"))]
    Login(auth::Login),
    /// End the session and forget its tokens.
    #[command(after_help = help!("logout"))]
    Logout,
    /// Who is signed in, and with which roles.
    #[command(after_help = help!("whoami"))]
    Whoami,
    /// Versions of this command and of the control plane, and whether they are compatible.
    #[command(after_help = help!("version"))]
    Version,
    /// Find out what is wrong between here and the executors.
    #[command(after_help = help!("doctor"))]
    Doctor,
    /// Private networks.
    #[command(subcommand, after_help = EXIT_CODES)]
    Sites(sites::Verb),
    /// Services inside a site that act on its BMCs.
    #[command(subcommand, after_help = EXIT_CODES)]
    Executors(executors::Verb),
    /// Passwords of BMCs, sealed here for the executors of a site.
    #[command(subcommand, after_help = EXIT_CODES)]
    Credentials(credentials::Verb),
    /// Physical machines.
    #[command(subcommand, after_help = EXIT_CODES)]
    Servers(servers::Verb),
    /// Planned and running work.
    #[command(subcommand, after_help = EXIT_CODES)]
    Jobs(jobs::Verb),
    /// One server's part of a job.
    #[command(subcommand, after_help = EXIT_CODES)]
    Runs(runs::Verb),
    /// People, their roles and their sessions.
    #[command(subcommand, after_help = EXIT_CODES)]
    Users(users::Verb),
    /// Change your own password, or choose one with the token of a link that an admin made.
    #[command(after_help = help!("password"))]
    Password(users::Password),
    /// What happened.
    #[command(subcommand, after_help = EXIT_CODES)]
    Events(events::Verb),
    /// The sealed trail of what was done, for auditors.
    #[command(subcommand, after_help = EXIT_CODES)]
    Audit(audit::Verb),
    /// Speak to a BMC directly, without a control plane.
    #[command(subcommand, after_help = EXIT_CODES)]
    Bmc(bmc::Verb),
    /// Print a completion script for a shell.
    #[command(after_help = help!("completions bash > ~/.local/share/bash-completion/completions/rackhand"))]
    Completions {
        /// The shell.
        #[arg(value_enum)]
        shell: Shell,
    },
}

/// Fewest and most characters of a reason.
const REASON: std::ops::RangeInclusive<usize> = 3..=500;

/// How many of a list are shown.
pub fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("at least 1 is required".to_owned()),
        Ok(number) => Ok(number),
        Err(_) => Err("a whole number is required".to_owned()),
    }
}

/// Why something is done; the API takes no shorter one.
pub fn reason(text: &str) -> Result<String, String> {
    match REASON.contains(&text.chars().count()) {
        true => Ok(text.to_owned()),
        false => Err(format!("a reason has {} to {} characters", REASON.start(), REASON.end())),
    }
}

/// A moment in the form that the API takes.
pub fn utc(text: &str) -> Result<String, String> {
    const FORM: &str = "2026-12-01T22:00:00Z";
    let is_alike = |(typed, form): (u8, u8)| match form.is_ascii_digit() {
        true => typed.is_ascii_digit(),
        false => typed == form,
    };
    match text.len() == FORM.len() && text.bytes().zip(FORM.bytes()).all(is_alike) {
        true => Ok(text.to_owned()),
        false => Err(format!("a time is UTC and written as {FORM}")),
    }
}

/// A SHA-256, as the API writes it.
pub fn digest(text: &str) -> Result<String, String> {
    let text = text.trim().to_ascii_lowercase();
    match text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        true => Ok(text),
        false => Err("a digest has 64 hex digits".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    /// Who reads it does not try to register two systems of one service.
    #[test]
    fn import_says_one_server_per_bmc() {
        let mut command = Cli::command();
        let import =
            command.find_subcommand_mut("servers").and_then(|noun| noun.find_subcommand_mut("import"));
        let help = import.unwrap().render_long_help().to_string().replace(['\n', ' '], "");
        let said = "One server per BMC: where a Redfish service has several systems, one of them";
        assert!(help.contains(&said.replace(' ', "")) && help.contains("credential(itsname)"), "{help}");
    }

    /// Each verb shows how it is typed, and that is how it is typed.
    #[test]
    fn examples_are_commands() {
        fn check(command: &clap::Command, path: &str) {
            let subs: Vec<_> = command.get_subcommands().filter(|sub| sub.get_name() != "help").collect();
            let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let examples: Vec<&str> =
                after.lines().filter_map(|line| line.strip_prefix("  rackhand ")).collect();
            assert!(!subs.is_empty() || !examples.is_empty(), "{path} has no example");
            for example in examples {
                assert!(example.starts_with(path), "{path}: {example}");
                // A shell would take the redirection away, and the quotes.
                let example = example.split(" > ").next().unwrap();
                let words = example.split('"').enumerate().flat_map(|(index, part)| match index % 2 {
                    0 => part.split_whitespace().collect(),
                    _ => vec![part],
                });
                let words =
                    std::iter::once("rackhand").chain(words).map(|word| word.replace("HEX", &"0".repeat(64)));
                if let Err(error) = Cli::try_parse_from(words) {
                    panic!("{example}: {error}");
                }
            }
            for sub in subs {
                check(sub, format!("{path} {}", sub.get_name()).trim_start());
            }
        }
        check(&Cli::command(), "");
    }

    /// A reader has no need to guess what stands for what.
    #[test]
    fn every_argument_says_what_it_is() {
        fn check(command: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            for argument in command.get_arguments() {
                let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
                assert!(!help.is_empty(), "{path}: {}", argument.get_id());
            }
            for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
                check(sub, &path);
            }
        }
        check(&Cli::command(), "");
    }

    /// A number has its default in the help, or what holds without it; a duration its unit.
    #[test]
    fn numbers_show_their_defaults_and_durations_their_units() {
        fn check(command: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            for argument in command.get_arguments() {
                let name = argument.get_value_names().map(|names| names.join(" ")).unwrap_or_default();
                if !["N", "MS", "SECONDS", "TIME"].contains(&name.as_str()) {
                    continue;
                }
                let help = argument.get_long_help().or(argument.get_help()).unwrap().to_string();
                let holds = ["ithout it ", "new site has"].iter().any(|words| help.contains(words));
                let place = format!("{path}: {}", argument.get_id());
                assert!(holds || !argument.get_default_values().is_empty(), "{place} has no default: {help}");
                let unit = match name.as_str() {
                    "MS" => "milliseconds",
                    "SECONDS" => "econds",
                    "TIME" => "UTC",
                    _ => "",
                };
                assert!(help.contains(unit), "{place} has no unit: {help}");
            }
            for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
                check(sub, &path);
            }
        }
        check(&Cli::command(), "");
    }

    /// Who mistypes a value reads which option it was given to, and what is allowed.
    #[test]
    fn a_wrong_value_names_the_option_and_what_is_allowed() {
        let plan = "jobs plan inventory --all --reason test";
        for (typed, option, allowed) in [
            (format!("{plan} --max-parallel 0"), "--max-parallel <N>", "1..=1000"),
            (format!("{plan} --pause-after-failures 1001"), "--pause-after-failures <N>", "0..=1000"),
            (format!("{plan} --start-after tomorrow"), "--start-after <TIME>", "2026-12-01T22:00:00Z"),
            ("sites set lab --lease-ttl-ms 1".to_owned(), "--lease-ttl-ms <MS>", "500..=600000"),
            ("sites set lab --max-mutating-runs 0".to_owned(), "--max-mutating-runs <N>", "1..=10000"),
        ] {
            let words = std::iter::once("rackhand").chain(typed.split(' '));
            let said = Cli::try_parse_from(words).unwrap_err().to_string();
            assert!(said.contains(option) && said.contains(allowed), "{typed}: {said}");
        }
    }

    /// Who grants a role reads both ways to say where.
    #[test]
    fn a_role_without_a_place_names_both_ways_to_give_one() {
        let words = "rackhand users grant ben@rackhand.example --role operator".split(' ');
        let said = Cli::try_parse_from(words.clone()).unwrap_err().to_string();
        assert!(said.contains("--site <SITE>") && said.contains("--fleet"), "{said}");
        assert!(Cli::try_parse_from(words.chain(["--fleet", "--site", "lab"])).is_err());
    }

    /// Every verb says what its exit codes mean, and none takes a secret as an argument.
    #[test]
    fn every_help_lists_exit_codes_and_no_flag_takes_a_secret() {
        fn check(command: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(after.contains("7    partial success"), "{path}");
            for argument in command.get_arguments() {
                let id = argument.get_id().as_str();
                let secret = ["password", "token", "secret"].iter().any(|word| id.contains(word));
                let harmless = id.ends_with("_stdin") || id.ends_with("_file");
                assert!(!secret || harmless, "{path}: --{id}");
            }
            for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
                check(sub, &path);
            }
        }
        check(&Cli::command(), "");
    }
}
