//! The command line: `noun verb [value] [flags]`.

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

use crate::{
    auth, bmc, credentials,
    error::EXIT_CODES,
    events, executors, jobs,
    output::{Format, Output},
    runs, servers, sites,
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

#[derive(Debug, Args)]
pub struct Global {
    /// Address of the control plane; the one signed in to last if not given.
    #[arg(long, global = true, value_name = "URL", env = "RACKHAND_API")]
    pub api: Option<String>,
    /// Form of the data on stdout.
    #[arg(short, long, global = true, value_enum, value_name = "FORM", default_value_t)]
    output: Format,
    /// The same as `-o json`.
    #[arg(long, global = true, conflicts_with = "output")]
    json: bool,
}

impl Global {
    pub fn output(&self) -> Output {
        Output::new(if self.json { Format::Json } else { self.output })
    }
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Sign in to a control plane.
    #[command(after_help = EXIT_CODES)]
    Login(auth::Login),
    /// End the session and forget its tokens.
    #[command(after_help = EXIT_CODES)]
    Logout,
    /// Who is signed in, and with which roles.
    #[command(after_help = EXIT_CODES)]
    Whoami,
    /// Versions of this client and of the server, and whether they fit.
    #[command(after_help = EXIT_CODES)]
    Version,
    /// Find out what is wrong between here and the executors.
    #[command(after_help = EXIT_CODES)]
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
    /// One target's part of a job.
    #[command(subcommand, after_help = EXIT_CODES)]
    Runs(runs::Verb),
    /// What happened.
    #[command(subcommand, after_help = EXIT_CODES)]
    Events(events::Verb),
    /// Speak to a BMC directly, without a control plane.
    #[command(subcommand, after_help = EXIT_CODES)]
    Bmc(bmc::Verb),
    /// Print a completion script for a shell.
    #[command(after_help = EXIT_CODES)]
    Completions {
        #[arg(value_enum)]
        shell: Shell,
    },
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
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
