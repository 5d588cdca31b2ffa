//! Who may do what over TCP: the token file, and the comparison of what somebody presents with what stands there.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use ring::digest::{SHA256, digest};
use subtle::{ConditionallySelectable as _, ConstantTimeEq as _};

use crate::model::{Quoted, ServiceName};

/// What a token allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// To look.
    Read,
    /// To look and to change.
    Write,
    /// To register backends of one service, and nothing else.
    Register(ServiceName),
}

/// The tokens of a file.
#[derive(Debug)]
pub(super) struct Tokens(Vec<Token>);

#[derive(Debug)]
struct Token {
    scope: Scope,
    /// SHA-256 of the token: all are of one length, and the tokens themselves are not kept.
    digest: [u8; 32],
}

/// A token file that cannot be used. One line; it never quotes a token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// It cannot be read.
    #[error("cannot read the token file {}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// Anybody can read or write it.
    #[error("the token file {0} is open to every user of this machine (mode {1:04o}): chmod 600 {0}", path.display(), mode)]
    Open {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// A line makes no sense.
    #[error("the token file {} line {line}: {reason}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line's number.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// It has no token.
    #[error("the token file {} has no token: write one, such as `write $(openssl rand -hex 32)`", .0.display())]
    Empty(PathBuf),
}

impl Tokens {
    /// Reads the file.
    ///
    /// # Errors
    /// Where it cannot be read, can be read by others, or makes no sense.
    pub(super) fn load(path: &Path) -> Result<Self, TokenError> {
        let failed = |error| TokenError::Read { path: path.to_owned(), error };
        let mode = fs::metadata(path).map_err(failed)?.permissions().mode() & 0o7777;
        if mode & 0o007 != 0 {
            return Err(TokenError::Open { path: path.to_owned(), mode });
        }
        Self::parse(&fs::read_to_string(path).map_err(failed)?, path)
    }

    fn parse(text: &str, path: &Path) -> Result<Self, TokenError> {
        let mut tokens: Vec<Token> = Vec::new();
        for (line, text) in (1..).zip(text.lines()) {
            let wrong = |reason: String| TokenError::Line { path: path.to_owned(), line, reason };
            let Some(token) = Token::parse(text).map_err(wrong)? else { continue };
            if tokens.iter().any(|other| other.digest == token.digest) {
                return Err(wrong("a token that stands there already".to_owned()));
            }
            tokens.push(token);
        }
        match tokens.is_empty() {
            true => Err(TokenError::Empty(path.to_owned())),
            false => Ok(Self(tokens)),
        }
    }

    /// What a token allows, if it is one. Takes as long whichever it is, and however much of one it has right.
    pub(super) fn scope(&self, presented: &str) -> Option<Scope> {
        let presented = hash(presented);
        let mut found = 0_u32;
        for (number, token) in (1..).zip(&self.0) {
            found.conditional_assign(&number, token.digest.ct_eq(&presented));
        }
        let index = usize::try_from(found).ok()?.checked_sub(1)?;
        self.0.get(index).map(|token| token.scope.clone())
    }
}

impl Token {
    /// `read TOKEN`, `write TOKEN`, `register:SERVICE TOKEN`, or a token alone, which is one to write with; nothing for an empty line or a comment.
    fn parse(line: &str) -> Result<Option<Self>, String> {
        let line = line.trim();
        if line.starts_with('#') {
            return Ok(None);
        }
        let words: Vec<_> = line.split_whitespace().collect();
        let (scope, token) = match words.as_slice() {
            [] => return Ok(None),
            ["read" | "write"] => return Err("a scope without a token".to_owned()),
            [token] | ["write", token] => (Scope::Write, *token),
            ["read", token] => (Scope::Read, *token),
            [scope, token] => {
                let unknown =
                    || format!("unknown scope {}: valid are read, write, register:SERVICE", Quoted(scope));
                let service = scope.strip_prefix("register:").ok_or_else(unknown)?;
                (Scope::Register(service.parse().map_err(|error| format!("{error}"))?), *token)
            }
            _ => return Err(format!("{} words: write `read TOKEN` or `write TOKEN`", words.len())),
        };
        // RFC 6750 section 2.1: what can stand in a header.
        let is_sendable = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
        match token.bytes().all(is_sendable) {
            true => Ok(Some(Self { scope, digest: hash(token) })),
            false => Err("a token has only the characters A-Z a-z 0-9 - . _ ~ + / =".to_owned()),
        }
    }
}

fn hash(token: &str) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Tokens, String> {
        Tokens::parse(text, Path::new("token")).map_err(|error| error.to_string())
    }

    #[test]
    fn a_token_has_the_scope_of_its_line() {
        let tokens = parse("# ours\n\nread r-1\n  write w-1  \nalone\nread r-2\nregister:web g-1\n").unwrap();
        let expected = [
            ("r-1", Some(Scope::Read)),
            ("r-2", Some(Scope::Read)),
            ("w-1", Some(Scope::Write)),
            ("alone", Some(Scope::Write)),
            ("g-1", Some(Scope::Register("web".parse().unwrap()))),
            ("r-3", None),
            ("register:web", None),
            ("r-", None),
            ("r-11", None),
            ("", None),
            ("# ours", None),
            ("read r-1", None),
        ];
        for (token, scope) in expected {
            assert_eq!(tokens.scope(token), scope, "{token}");
        }
    }

    #[test]
    fn each_bad_file_has_its_message_and_shows_no_token() {
        let cases = [
            ("", "the token file token has no token: write one, such as `write $(openssl rand -hex 32)`"),
            (
                "# read x\n",
                "the token file token has no token: write one, such as `write $(openssl rand -hex 32)`",
            ),
            ("read\n", "the token file token line 1: a scope without a token"),
            (
                "\nadmin secret\n",
                "the token file token line 2: unknown scope `admin`: valid are read, write, register:SERVICE",
            ),
            (
                "read secret for me\n",
                "the token file token line 1: 4 words: write `read TOKEN` or `write TOKEN`",
            ),
            ("secret\nread secret\n", "the token file token line 2: a token that stands there already"),
            (
                "write s\u{fc}cret\n",
                "the token file token line 1: a token has only the characters A-Z a-z 0-9 - . _ ~ + / =",
            ),
        ];
        for (text, message) in cases {
            assert_eq!(parse(text).unwrap_err(), message);
        }
    }

    #[test]
    fn a_file_that_others_can_read_is_refused_with_the_command_that_helps() {
        let path = std::env::temp_dir().join(format!("lb-agent-token-{}", std::process::id()));
        fs::write(&path, "write secret\n").unwrap();
        let mode = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        mode(0o644);
        let open = Tokens::load(&path).unwrap_err().to_string();
        mode(0o640);
        let shared = Tokens::load(&path);
        fs::remove_file(&path).unwrap();
        let shown = path.display();
        assert_eq!(
            open,
            format!(
                "the token file {shown} is open to every user of this machine (mode 0644): chmod 600 {shown}"
            )
        );
        assert_eq!(shared.unwrap().scope("secret"), Some(Scope::Write));
        assert!(Tokens::load(&path).unwrap_err().to_string().starts_with("cannot read the token file "));
    }
}
