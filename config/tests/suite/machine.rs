//! Cases that need files: those of the configuration itself and those it names.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;

use lifeboat_config::{Config, Rule, environment};

const DOCUMENT: &str = include_str!("../golden/good-rfc2136.toml");

/// Each rule with what is shown when it is broken; the temporary folder is called TEMP.
pub(super) fn cases() -> Vec<(Rule, String)> {
    let mut all = file_cases();
    all.extend(environment_cases());
    all
}

fn shown(folder: &Path, text: &str) -> String {
    text.replace(folder.to_str().unwrap(), "TEMP")
}

fn file_cases() -> Vec<(Rule, String)> {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let case = |rule, name: &str| {
        let problems = Config::load(&path(name)).unwrap_err();
        (rule, shown(folder.path(), &problems.to_string()))
    };
    fs::write(path("large.toml"), vec![b'#'; 10 << 20]).unwrap();
    fs::write(path("latin1.toml"), b"# fine\nname = \"b\xfccher\"\n").unwrap();
    vec![
        case(Rule::FileUnreadable, "missing.toml"),
        case(Rule::FileNotRegular, ""),
        case(Rule::FileTooLarge, "large.toml"),
        case(Rule::FileNotUtf8, "latin1.toml"),
    ]
}

/// A machine on which everything is as it should be.
struct Machine {
    folder: tempfile::TempDir,
}

impl Machine {
    fn new() -> Self {
        let machine = Self { folder: tempfile::tempdir().unwrap() };
        machine.write("password", 0o600, "swordfish\n");
        machine.write("key", 0o600, "c3dvcmRmaXNo\n");
        machine.write("ca.pem", 0o644, "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n");
        machine.write("isolate", 0o755, "#!/bin/sh\n");
        fs::create_dir(machine.path("state")).unwrap();
        machine.mode("state", 0o700);
        let text = DOCUMENT
            .replace("/var/lib/lifeboat", machine.path("state").to_str().unwrap())
            .replace("/etc/lifeboat/orders.password", machine.path("password").to_str().unwrap())
            .replace(
                "user = \"lifeboat\"",
                &format!("user = \"lifeboat\"\nca_file = {:?}", machine.path("ca.pem")),
            )
            .replace("/etc/lifeboat/dr.key", machine.path("key").to_str().unwrap())
            .replace("/usr/local/bin/isolate", machine.path("isolate").to_str().unwrap());
        machine.write("lifeboat.toml", 0o644, &text);
        machine
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, mode: u32, text: &str) {
        fs::write(self.path(name), text).unwrap();
        self.mode(name, mode);
    }

    fn mode(&self, name: &str, mode: u32) {
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).unwrap();
    }

    fn problems(&self) -> String {
        let loaded = Config::load(&self.path("lifeboat.toml")).unwrap();
        // A file in the temporary folder is what the tests are about; where it is, is not.
        let problems = environment(&loaded);
        shown(self.folder.path(), &problems.to_string())
    }
}

fn environment_cases() -> Vec<(Rule, String)> {
    let case = |rule, spoil: fn(&Machine)| {
        let machine = Machine::new();
        assert_eq!(machine.problems(), "", "a good machine");
        spoil(&machine);
        let before = listing(&machine);
        let problems = machine.problems();
        assert_eq!(before, listing(&machine), "nothing is left behind");
        (rule, problems)
    };
    vec![
        case(Rule::FileMissing, |m| {
            fs::remove_file(m.path("password")).unwrap();
            fs::remove_file(m.path("ca.pem")).unwrap();
            // Neither a pipe nor a socket is waited for.
            fs::remove_file(m.path("key")).unwrap();
            drop(UnixListener::bind(m.path("key")).unwrap());
        }),
        case(Rule::SecretExposed, |m| m.mode("password", 0o644)),
        case(Rule::SecretNotOneLine, |m| {
            m.write("password", 0o600, "\n");
            m.write("key", 0o600, "c3dvcmRmaXNo\nc3dvcmRmaXNo\n");
        }),
        case(Rule::KeyNotBase64, |m| m.write("key", 0o600, "secret \"c3dvcmRmaXNo\";")),
        case(Rule::NoCertificate, |m| m.write("ca.pem", 0o644, "swordfish\n")),
        case(Rule::FenceNotExecutable, |m| m.mode("isolate", 0o644)),
        case(Rule::StateNotWritable, |m| {
            fs::remove_dir(m.path("state")).unwrap();
            symlink(m.path("key"), m.path("state")).unwrap();
        }),
        case(Rule::StateExposed, |m| m.mode("state", 0o755)),
        case(Rule::ConfigExposed, |m| m.mode("lifeboat.toml", 0o666)),
    ]
}

fn listing(machine: &Machine) -> Vec<String> {
    let folders = [machine.folder.path().to_owned(), machine.path("state")];
    let entries = folders.iter().filter_map(|f| fs::read_dir(f).ok()).flatten();
    let mut names: Vec<_> = entries.map(|e| e.unwrap().path().display().to_string()).collect();
    names.sort();
    names
}
