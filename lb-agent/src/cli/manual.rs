//! `lb-agent completions` and `lb-agent man`: what shells and `man` want to know of the command line, made from its definition.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, Command, CommandFactory as _};
use clap_complete::Shell;
use clap_mangen::Man;

use super::Cli;
use super::output::Output;

/// Prints a script that completes `lb-agent` and its verbs in a shell.
#[derive(Debug, Args)]
#[command(after_long_help = COMPLETIONS)]
pub(super) struct Completions {
    /// For which shell.
    #[arg(value_enum)]
    shell: Shell,
}

const COMPLETIONS: &str = "\
Examples:
  lb-agent completions bash > /etc/bash_completion.d/lb-agent
  lb-agent completions zsh > /usr/share/zsh/vendor-completions/_lb-agent
  lb-agent completions fish > ~/.config/fish/completions/lb-agent.fish";

/// Prints the manual page, or writes one for each verb into a directory.
///
/// The page of the whole has section 8; those of the verbs are named lb-agent-VERB.8.
#[derive(Debug, Args)]
#[command(after_long_help = MAN)]
pub(super) struct ManualPages {
    /// Where one file for each page is written, and what was there of that name replaced.
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
}

const MAN: &str = "\
Examples:
  lb-agent man | man --local-file -
  lb-agent man --directory /usr/local/share/man/man8";

/// Section of the manual: commands of the administrator.
const SECTION: &str = "8";

impl Completions {
    pub(super) fn execute(self, output: &Output) -> anyhow::Result<()> {
        output.text(&completions(self.shell))
    }
}

impl ManualPages {
    pub(super) fn execute(self, output: &Output) -> anyhow::Result<()> {
        let pages = pages(command());
        let Some(directory) = self.directory else {
            return output.text(&pages[0].text);
        };
        for page in &pages {
            write(&directory, page)?;
        }
        output.note(&format!("{} pages written to {}", pages.len(), directory.display()));
        Ok(())
    }
}

/// A manual page, and the name of its file.
struct Page {
    file: String,
    text: String,
}

fn write(directory: &Path, page: &Page) -> anyhow::Result<()> {
    let path = directory.join(&page.file);
    fs::create_dir_all(directory)
        .and_then(|()| fs::write(&path, &page.text))
        .with_context(|| format!("cannot write the manual page {}", path.display()))
}

/// The definition with everything inherited: global options stand in each verb.
fn command() -> Command {
    let mut command = Cli::command();
    command.build();
    command
}

fn completions(shell: Shell) -> String {
    in_memory(|text| {
        clap_complete::generate(shell, &mut command(), "lb-agent", text);
        Ok(())
    })
}

/// The page of a command, then those of its verbs, in the order of the help.
fn pages(command: Command) -> Vec<Page> {
    let verbs: Vec<_> = command.get_subcommands().filter(|verb| !verb.is_hide_set()).cloned().collect();
    let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
    let page = Man::new(command).title(name.clone()).section(SECTION);
    let first = Page { file: format!("{name}.{SECTION}"), text: in_memory(|text| page.render(text)) };
    std::iter::once(first).chain(verbs.into_iter().flat_map(pages)).collect()
}

/// What is written into memory cannot fail; text that is not Unicode would be a fault of the definition.
fn in_memory(render: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> String {
    let mut text = Vec::new();
    let _ = render(&mut text);
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    #[test]
    fn every_shell_completes_every_verb() {
        let verbs: Vec<_> = command().get_subcommands().map(|verb| verb.get_name().to_owned()).collect();
        for shell in Shell::value_variants() {
            let script = completions(*shell);
            for verb in &verbs {
                assert!(script.contains(verb.as_str()), "{shell} does not know {verb}");
            }
        }
    }

    #[test]
    fn every_verb_has_a_page_that_names_it() {
        let pages = pages(command());
        assert_eq!(pages[0].file, "lb-agent.8");
        for verb in ["lb-agent-run", "lb-agent-backend-add", "lb-agent-man"] {
            let page = pages.iter().find(|page| page.file == format!("{verb}.8"));
            let page = page.unwrap_or_else(|| panic!("{verb} has no page"));
            assert!(page.text.contains(&format!(".TH {verb} 8")), "{}", page.text);
            assert!(page.text.contains(".SH OPTIONS"), "{verb}");
        }
    }

    #[test]
    fn pages_that_cannot_be_written_say_which() {
        let page = Page { file: "lb-agent.8".to_owned(), text: String::new() };
        let error = write(Path::new("/proc/none"), &page).unwrap_err();
        assert!(format!("{error:#}").starts_with("cannot write the manual page /proc/none/lb-agent.8: "));
    }
}
