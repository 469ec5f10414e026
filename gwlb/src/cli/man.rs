//! `gwlb man`: the manual, from the same definition as `--help`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Command, CommandFactory};
use clap_mangen::Man;

use super::{Arguments, fail, print};

/// Print the manual page of gwlb, or write one page for each command to a folder.
///
/// `gwlb man --out /usr/local/share/man/man1` has `man gwlb` and `man gwlb-status` find them.
#[derive(Debug, Args)]
pub(super) struct ManArgs {
    /// Write gwlb.1, gwlb-status.1 and so on to this folder, which is made if it is not there.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

pub(super) fn run(arguments: &ManArgs) -> ExitCode {
    let done = match &arguments.out {
        None => rendered(Arguments::command()).map(|page| print(&page)),
        Some(folder) => write(folder).map(|()| ExitCode::SUCCESS),
    };
    done.unwrap_or_else(|error| fail(&format!("cannot write the manual: {error}")))
}

fn write(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    for (name, command) in pages() {
        fs::write(folder.join(format!("{name}.1")), rendered(command)?)?;
    }
    Ok(())
}

/// Every command that is shown, with the name of its page.
fn pages() -> Vec<(String, Command)> {
    fn add(name: &str, command: Command, pages: &mut Vec<(String, Command)>) {
        for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
            // Each page says what its own command is called in full.
            let name = format!("{name}-{}", below.get_name());
            let full = name.replace('-', " ");
            let below = below.clone().bin_name(full).display_name(name.clone());
            add(&name, below, pages);
        }
        pages.push((name.to_owned(), command));
    }
    let mut pages = Vec::new();
    // `help` has no page: it is what the pages are.
    let command = Arguments::command().disable_help_subcommand(true);
    add("gwlb", command, &mut pages);
    pages
}

fn rendered(command: Command) -> io::Result<String> {
    let mut page = Vec::new();
    Man::new(command.disable_help_subcommand(true)).manual("gwlb").render(&mut page)?;
    String::from_utf8(page).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page() {
        let pages = pages();
        let names: Vec<_> = pages.iter().map(|(name, _)| name.as_str()).collect();
        for name in ["gwlb", "gwlb-run", "gwlb-target-register", "gwlb-events", "gwlb-completions"]
        {
            assert!(names.contains(&name), "{name} in {names:?}");
        }
        assert!(!names.contains(&"gwlb-appliance") && !names.contains(&"gwlb-help"), "{names:?}");
        for (name, command) in pages {
            let about = command.get_about().map(ToString::to_string).unwrap_or_default();
            let page = rendered(command).unwrap();
            assert!(page.contains(&format!(".TH {name} 1")), "{name}: {page}");
            for section in [".SH NAME", ".SH SYNOPSIS", ".SH DESCRIPTION"] {
                assert!(page.contains(section), "{name}: {section} in {page}");
            }
            let first = about.split_whitespace().next().unwrap();
            assert!(page.contains(first), "{name}: {page}");
        }
    }

    #[test]
    fn groff_has_nothing_to_complain_about() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path()).unwrap();
        for page in fs::read_dir(folder.path()).unwrap() {
            let page = page.unwrap().path();
            let checked = std::process::Command::new("groff")
                .args(["-man", "-Tutf8", "-ww", "-z", "-K", "utf8"])
                .arg(&page)
                .output();
            let Ok(checked) = checked else {
                return netio::netns::skip_test("groff", "groff is not installed");
            };
            let said = String::from_utf8_lossy(&checked.stderr);
            assert!(checked.status.success() && said.is_empty(), "{}: {said}", page.display());
        }
    }
}
