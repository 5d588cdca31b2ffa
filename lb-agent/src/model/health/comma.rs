//! The form with commas: `http,path=/x,body=a\,b`. `\,` is a comma within a value and `\\` a backslash; before anything
//! else a backslash stands for itself.

/// The parts between commas that are not escaped.
pub(super) fn split(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        let escaped = match character {
            '\\' => characters.next_if(|next| matches!(next, ',' | '\\')),
            _ => None,
        };
        match (character, escaped, parts.last_mut()) {
            (',', None, _) => parts.push(String::new()),
            (_, value, Some(part)) => part.push(value.unwrap_or(character)),
            (_, _, None) => {}
        }
    }
    parts
}

/// A value as it stands between commas.
pub(super) fn escape(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len());
    let mut characters = value.chars().peekable();
    while let Some(character) = characters.next() {
        let mut would_escape = || characters.peek().is_none_or(|next| matches!(next, ',' | '\\'));
        if character == ',' || (character == '\\' && would_escape()) {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_backslash_escapes_commas_and_itself() {
        assert_eq!(split(r"a,b\,c,d\\,\n"), ["a", "b,c", r"d\", r"\n"]);
        assert_eq!(split(""), [""]);
        assert_eq!(escape(r"\n"), r"\n");
        assert_eq!(escape(r"\"), r"\\");
    }

    proptest! {
        #[test]
        fn every_value_survives(values in proptest::collection::vec("[a,\\\\n=]{0,8}", 1..4)) {
            let text: Vec<_> = values.iter().map(|value| escape(value)).collect();
            prop_assert_eq!(split(&text.join(",")), values);
        }
    }
}
