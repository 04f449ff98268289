//! Text that a command or a model wrote, made safe to show on a terminal.
//!
//! Control characters, escape sequences, bidirectional overrides and bytes that are no UTF-8 become visible
//! escapes; nothing else changes. Raw bytes go out only where somebody asked for them.

/// Which control characters keep their meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// None: the text is to stay on its line.
    OneLine,
    /// Line feeds and tabs.
    Lines,
}

/// `bytes` with everything escaped that could do more than be read.
pub(crate) fn escape(bytes: &[u8], layout: Layout) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            push(&mut text, character, layout);
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

fn push(text: &mut String, character: char, layout: Layout) {
    match character {
        '\n' | '\t' if layout == Layout::Lines => text.push(character),
        _ if character.is_control() || is_invisible(character) => text.extend(character.escape_default()),
        _ => text.push(character),
    }
}

/// Characters that reorder or hide text around them (Unicode Bidi_Control and default ignorables).
fn is_invisible(character: char) -> bool {
    matches!(character,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// A command as a person would type it: arguments quoted where they need it, everything escaped.
pub(crate) fn command(argv: &[sandbar_proto::ByteString]) -> String {
    let words: Vec<String> =
        argv.iter().map(|argument| quote(&escape(argument.as_bytes(), Layout::OneLine))).collect();
    words.join(" ")
}

fn quote(word: &str) -> String {
    let plain = |character: char| character.is_alphanumeric() || "-_./=:,@%+".contains(character);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_drive_a_terminal_becomes_visible() {
        let cases: [(&[u8], &str); 5] = [
            (b"plain \xc3\xbc", "plain ü"),
            (b"\x1b[2J", "\\u{1b}[2J"),
            (b"a\xffb", "a\\xffb"),
            ("x\u{202e}y".as_bytes(), "x\\u{202e}y"),
            (b"one\ntwo", "one\\ntwo"),
        ];
        for (bytes, expected) in cases {
            assert_eq!(escape(bytes, Layout::OneLine), expected);
        }
        assert_eq!(escape(b"one\ntwo\r", Layout::Lines), "one\ntwo\\r");
    }

    #[test]
    fn commands_are_quoted_like_a_person_would() {
        let argv = ["sh", "-c", "echo 'hi'", ""].map(sandbar_proto::ByteString::from);
        assert_eq!(command(&argv), r"sh -c 'echo '\''hi'\''' ''");
    }
}
