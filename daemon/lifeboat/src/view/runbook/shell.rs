//! Commands as a person types them, for a POSIX shell and Markdown.
//!
//! **Invariant:** a name from the configuration is one word of the command, whatever is in it.

/// One word for the shell.
pub(crate) fn word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-:/=@%+,".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// A command from the configuration, with its region filled in, and the epoch as the shell holds it.
pub(crate) fn command(argv: &[String], region: &str) -> String {
    let one = |text: &String| {
        let parts: Vec<String> = text.split("{epoch}").map(|part| part.replace("{region}", region)).collect();
        let quoted = |part: &String| if part.is_empty() { String::new() } else { word(part) };
        if parts.len() > 1 {
            parts.iter().map(quoted).collect::<Vec<_>>().join("\"$EPOCH\"")
        } else {
            word(&parts[0])
        }
    };
    argv.iter().map(one).collect::<Vec<_>>().join(" ")
}

/// A command that reads `script` from its input. Nothing in the script is the shell's.
pub(crate) fn fed(command: &str, script: &str) -> String {
    format!("{command} <<'SQL'\n{}\nSQL", script.trim_end())
}

/// The commands in a session that a fence lets pass.
pub(crate) fn past_the_fence(commands: &str) -> String {
    format!("(\nexport PGOPTIONS='-c session_preload_libraries='\n{commands}\n)")
}

/// Commands as a block of the page.
pub(crate) fn block(commands: &str) -> String {
    // A command of the operator's own may hold backquotes.
    let fence = if commands.contains("```") { "`````" } else { "```" };
    format!("{fence}sh\n{}\n{fence}\n\n", commands.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_stays_one_word() {
        assert_eq!(word("/usr/bin/ssh"), "/usr/bin/ssh");
        assert_eq!(word("a b$(rm)'c"), r"'a b$(rm)'\''c'");
        assert_eq!(word(""), "''");
        let argv =
            ["isolate".to_owned(), "{region}".to_owned(), "no {epoch}!".to_owned(), "{epoch}".to_owned()];
        assert_eq!(command(&argv, "east"), r#"isolate east 'no '"$EPOCH"'!' "$EPOCH""#);
    }
}
