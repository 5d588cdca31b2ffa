//! Running other programs: what failed, how it was called, and the way round.

use std::env;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, bail};

/// Directories of system tools that are not in every user's `PATH`.
const SYSTEM_DIRECTORIES: [&str; 3] = ["/usr/sbin", "/sbin", "/usr/local/sbin"];

/// One thing that is done by another program, and what to tell when it cannot be done.
pub(crate) struct Step<'a> {
    /// What is being done, as in "step failed: NAME".
    pub(crate) name: &'a str,
    /// What the user can do when it fails.
    pub(crate) way_round: &'a str,
}

impl Step<'_> {
    /// Runs the command with this terminal's output.
    pub(crate) fn run(&self, command: &mut Command) -> Result<()> {
        let status = command.status().with_context(|| self.failure(command, "could not be started"))?;
        if !status.success() {
            bail!(self.failure(command, &status.to_string()));
        }
        Ok(())
    }

    /// Runs the command silently: its output is shown only when it fails.
    pub(crate) fn run_quietly(&self, command: &mut Command) -> Result<()> {
        let Output { status, stdout, stderr } = self.finished(command)?;
        if !status.success() {
            eprint!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
            bail!(self.failure(command, &status.to_string()));
        }
        Ok(())
    }

    /// Runs the command and returns its standard output.
    pub(crate) fn output(&self, command: &mut Command) -> Result<String> {
        let Output { status, stdout, stderr } = self.finished(command)?;
        if !status.success() {
            eprint!("{}", String::from_utf8_lossy(&stderr));
            bail!(self.failure(command, &status.to_string()));
        }
        String::from_utf8(stdout)
            .with_context(|| self.failure(command, "answered with something else than text"))
    }

    fn finished(&self, command: &mut Command) -> Result<Output> {
        command.output().with_context(|| self.failure(command, "could not be started"))
    }

    fn failure(&self, command: &Command, what: &str) -> String {
        format!(
            "step failed: {}\n  command:   {} ({what})\n  way round: {}",
            self.name,
            command_line(command),
            self.way_round
        )
    }
}

/// The command as it could be typed.
fn command_line(command: &Command) -> String {
    let program = command.get_program();
    let is_cargo = env::var_os("CARGO").is_some_and(|cargo| cargo == program);
    std::iter::once(if is_cargo { OsStr::new("cargo") } else { program })
        .chain(command.get_args())
        .map(|word| quoted(&word.to_string_lossy()))
        .collect::<Vec<_>>()
        .join(" ")
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=+:,@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Finds a program in `PATH` and the directories of system tools.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    find_in(search_path(), program)
}

/// The directories of `PATH` and those of system tools.
pub(crate) fn search_path() -> impl Iterator<Item = PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let named: Vec<_> = env::split_paths(&path).collect();
    named.into_iter().chain(SYSTEM_DIRECTORIES.iter().map(PathBuf::from))
}

/// Finds a program in these directories.
pub(crate) fn find_in(directories: impl IntoIterator<Item = PathBuf>, program: &str) -> Option<PathBuf> {
    directories
        .into_iter()
        .map(|directory| directory.join(program))
        .find(|candidate| is_executable(candidate))
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// Cargo, of the toolchain that runs this task.
pub(crate) fn cargo() -> Command {
    Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Whether this process is root.
pub(crate) fn is_root() -> Result<bool> {
    let uid = Step { name: "ask for the user id", way_round: "install coreutils" }
        .output(Command::new("id").arg("-u"))?;
    Ok(uid.trim() == "0")
}

/// Variables of the caller's that tests and demonstrations may look at, and these on top.
pub(crate) fn passed_on(own: &[(&str, &OsStr)]) -> Vec<(OsString, OsString)> {
    const PREFIXES: [&str; 3] = ["LB_", "PROPTEST_", "RUST_"];
    let is_passed_on = |name: &OsStr| {
        name.to_str().is_some_and(|name| PREFIXES.iter().any(|prefix| name.starts_with(prefix)))
    };
    let mut variables: Vec<_> = env::vars_os().filter(|(name, _)| is_passed_on(name)).collect();
    variables.extend(own.iter().map(|(name, value)| (name.into(), value.into())));
    variables
}

/// A command that runs `program` as root with these variables: directly when this process is root, else by sudo.
/// Nothing is ever *built* this way.
pub(crate) fn as_root(program: impl AsRef<OsStr>, variables: &[(OsString, OsString)]) -> Result<Command> {
    if is_root()? {
        let mut command = Command::new(program);
        command.envs(variables.iter().map(|(name, value)| (name, value)));
        return Ok(command);
    }
    let Some(sudo) = find("sudo") else {
        bail!(
            "{} needs root, and there is no sudo: run the same command in a root shell",
            program.as_ref().to_string_lossy()
        );
    };
    // sudo clears the environment: `env` sets what the program needs, and nothing else is let through.
    let mut command = Command::new(sudo);
    command.arg("--").arg("env");
    for (name, value) in variables {
        let mut assignment = name.clone();
        assignment.push("=");
        assignment.push(value);
        command.arg(assignment);
    }
    command.arg(program);
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_shown_as_it_could_be_typed() {
        let mut command = Command::new("rustup");
        command.args(["component", "add", "a b", "it's", ""]);
        assert_eq!(command_line(&command), r"rustup component add 'a b' 'it'\''s' ''");
    }

    #[test]
    fn a_failed_step_names_step_command_and_way_round() {
        let step = Step { name: "say no", way_round: "say yes" };
        let error = step.run(&mut Command::new("false")).unwrap_err().to_string();
        assert!(error.starts_with("step failed: say no\n  command:   false (exit status: 1)"), "{error}");
        assert!(error.ends_with("way round: say yes"), "{error}");
    }

    #[test]
    fn only_executables_are_found() {
        assert!(find("sh").is_some());
        assert_eq!(find("no-such-program-anywhere"), None);
    }
}
