//! `gwlb completions`: what a shell completes.

use std::process::ExitCode;

use clap::{Args, CommandFactory};
use clap_complete::{Shell, generate};

use super::{Arguments, print};

/// Print what a shell needs to complete gwlb's commands and flags.
///
/// For bash: `gwlb completions bash > /etc/bash_completion.d/gwlb`.
#[derive(Debug, Args)]
pub(super) struct CompletionsArgs {
    /// The shell.
    #[arg(value_enum)]
    shell: Shell,
}

pub(super) fn run(arguments: &CompletionsArgs) -> ExitCode {
    print(&script(arguments.shell))
}

fn script(shell: Shell) -> String {
    let mut script = Vec::new();
    generate(shell, &mut Arguments::command(), "gwlb", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn every_shell_knows_every_command() {
        for shell in Shell::value_variants() {
            let script = script(*shell);
            for command in Arguments::command().get_subcommands().filter(|it| !it.is_hide_set()) {
                assert!(script.contains(command.get_name()), "{shell}: {}", command.get_name());
            }
            assert!(script.contains("log-format"), "{shell}");
        }
    }

    #[test]
    fn bash_takes_it_and_completes() {
        let asked =
            "COMP_WORDS=(gwlb targ); COMP_CWORD=1; _gwlb gwlb targ gwlb; echo ${COMPREPLY[@]}";
        let run = std::process::Command::new("bash")
            .args(["--norc", "-c"])
            .arg(format!("{}\n{asked}", script(Shell::Bash)))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&run.stderr);
        assert_eq!(String::from_utf8_lossy(&run.stdout).trim(), "target", "{said}");
    }
}
