//! How a restored server recovers: what is written into its folder, so that a plain start reaches the target.
//!
//! **Invariant:** a restored server sends nothing to where the old one did, follows nobody, and waits for nobody.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use lifeboat_archive::wal::Target;
use lifeboat_core::{SystemIdentifier, Timeline};

/// How it recovers.
pub(super) struct Recovery {
    /// The words that name the archive to `lifeboat wal get`.
    pub(super) words: Vec<String>,
    pub(super) system: SystemIdentifier,
    pub(super) timeline: Timeline,
    pub(super) target: Target,
    /// The log ends where the first of it is missing: a person has accepted that.
    pub(super) end_at_gap: bool,
    pub(super) pause: bool,
}

impl Recovery {
    /// Writes it; durable when this returns.
    pub(super) fn write(&self, data: &Path) -> io::Result<()> {
        let program = std::env::current_exe()?;
        let text = self.text(&program.display().to_string());
        // Without these two there is none to be started with: distributions keep them elsewhere.
        missing(
            &data.join("postgresql.conf"),
            "# Written by lifeboat: the backup had none.\nhot_standby = off\n",
        )?;
        missing(
            &data.join("pg_hba.conf"),
            "# Written by lifeboat: the backup had none.\nlocal all all peer\n",
        )?;
        // Whole, or as it was: a target that is left over from an earlier restore would be one too many.
        let (auto, next) = (data.join("postgresql.auto.conf"), data.join("postgresql.auto.conf.tmp"));
        let before = match fs::read_to_string(&auto) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            before => before?,
        };
        let kept: Vec<&str> =
            before.lines().filter(|line| !line.trim_start().starts_with("recovery_target")).collect();
        let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&next)?;
        file.write_all(kept.join("\n").as_bytes())?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&next, &auto)?;
        // It would be followed instead of the target being reached.
        match fs::remove_file(data.join("standby.signal")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let signal = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(data.join("recovery.signal"))?;
        signal.sync_all()?;
        fs::File::open(data)?.sync_all()
    }

    fn text(&self, program: &str) -> String {
        let system = self.system.to_string();
        let mut command: Vec<&str> = vec![program, "wal", "get", "%f", "%p"];
        command.extend(self.words.iter().map(String::as_str));
        command.extend(["--system", &system, "--spool", "pg_wal"]);
        command.extend(self.end_at_gap.then_some("--end-at-gap"));
        let command: Vec<String> = command.into_iter().map(word).collect();
        let mut lines = vec![
            String::new(),
            "# Written by lifeboat restore: the last of several lines counts.".to_owned(),
            setting("restore_command", &command.join(" ")),
            setting("recovery_end_command", &format!("rm -rf pg_wal/lifeboat-*-{:016x}", self.system.get())),
            setting("recovery_target_timeline", &self.timeline.to_string()),
            setting("recovery_target_action", if self.pause { "pause" } else { "promote" }),
        ];
        // PostgreSQL takes a second target for a fault, also an empty one.
        match &self.target {
            Target::Latest => {}
            Target::Time(moment) => {
                let at = moment.to_string().replace('T', " ").replace('Z', "+00");
                lines.push(setting("recovery_target_time", &at));
            }
            Target::Lsn(at) => lines.push(setting("recovery_target_lsn", &at.to_string())),
            Target::Name(name) => lines.push(setting("recovery_target_name", name)),
        }
        for (key, value) in [
            ("primary_conninfo", ""),
            ("primary_slot_name", ""),
            ("synchronous_standby_names", ""),
            ("archive_mode", "off"),
        ] {
            lines.push(setting(key, value));
        }
        lines.push(String::new());
        lines.join("\n")
    }
}

fn missing(path: &Path, text: &str) -> io::Result<()> {
    match OpenOptions::new().create_new(true).write(true).mode(0o600).open(path) {
        Ok(mut file) => {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// One line of a configuration file of PostgreSQL.
fn setting(key: &str, value: &str) -> String {
    format!("{key} = '{}'", value.replace('\\', "\\\\").replace('\'', "''"))
}

/// One word of a command that a shell runs, and in which PostgreSQL replaces %f and %p.
fn word(text: &str) -> String {
    if text == "%f" || text == "%p" {
        return format!("\"{text}\"");
    }
    let text = text.replace('%', "%%");
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-:=,@+%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lifeboat_core::{Lsn, Moment};

    fn recovery(target: Target) -> Recovery {
        Recovery {
            words: vec!["--config".to_owned(), "/etc/life boat's/100%.toml".to_owned()],
            system: SystemIdentifier::new(7),
            timeline: Timeline::new(3),
            target,
            end_at_gap: false,
            pause: false,
        }
    }

    #[test]
    fn words_survive_the_shell_and_the_server() {
        let text = recovery(Target::Latest).text("/usr/bin/lifeboat");
        let line = text.lines().find(|line| line.starts_with("restore_command")).unwrap();
        assert_eq!(
            line,
            r#"restore_command = '/usr/bin/lifeboat wal get "%f" "%p" --config ''/etc/life boat''\\''''s/100%%.toml'' --system 7 --spool pg_wal'"#
        );
    }

    #[test]
    fn one_target_is_set_and_no_other() {
        let of = |target| {
            let text = recovery(target).text("lifeboat");
            let all = text
                .lines()
                .filter(|line| line.starts_with("recovery_target_") && !line.contains("timeline"));
            all.filter(|line| !line.contains("action")).map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(of(Target::Latest), Vec::<String>::new());
        let time = of(Target::Time(Moment::from_millis(1_795_252_486_123)));
        assert_eq!(time, ["recovery_target_time = '2026-11-21 09:14:46.123+00'"]);
        assert_eq!(of(Target::Lsn(Lsn::new(0x1_0000_0028))), ["recovery_target_lsn = '1/28'"]);
        assert_eq!(of(Target::Name("it's".to_owned())), ["recovery_target_name = 'it''s'"]);
    }

    #[test]
    fn it_follows_nobody_and_waits_for_nobody() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("standby.signal"), "").unwrap();
        fs::write(folder.path().join("postgresql.auto.conf"), "synchronous_standby_names = 'west'\n")
            .unwrap();
        fs::write(folder.path().join("postgresql.conf"), "# ours\n").unwrap();
        recovery(Target::Latest).write(folder.path()).unwrap();
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
        assert!(!folder.path().join("standby.signal").exists());
        assert_eq!(read("recovery.signal"), "");
        assert_eq!(read("postgresql.conf"), "# ours\n", "what is there is left");
        assert!(read("pg_hba.conf").contains("peer"));
        let settings = read("postgresql.auto.conf");
        let names: Vec<_> =
            settings.lines().filter(|line| line.starts_with("synchronous_standby_names")).collect();
        assert_eq!(names, ["synchronous_standby_names = 'west'", "synchronous_standby_names = ''"]);
        assert!(!settings.contains("recovery_target_lsn"), "what is left over from an earlier restore");
    }
}
