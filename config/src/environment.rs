//! The document against this machine: files, their modes, the folder of the journal.
//!
//! **Invariant:** only the local file system is touched, nothing in it is left changed, and no content of a secret is
//! in a message.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use toml::de::DeTable;

use crate::config::Loaded;
use crate::document::dns::DnsName;
use crate::document::lease::{EtcdLease, Lease};
use crate::document::probe::Probe;
use crate::document::workload::Workload;
use crate::form::FilePath;
use crate::place::Place;
use crate::problem::{Found, Problem, Problems};
use crate::rule::Rule;

/// The most that is read of a secret or of trust anchors, in bytes.
const MOST: u64 = 1 << 20;

/// Holds a document against this machine, as the user who runs this: to be run as the daemon's user.
///
/// Checks that secret files, trust anchors and fence programs are there and as they should be, and that the
/// journal's folder can be written (with a file that is removed at once). Servers are not asked.
pub fn environment(loaded: &Loaded) -> Problems {
    let mut found = Found::default();
    // The text was parsed once to load it, so this cannot fail; without it, problems have no line.
    let root = DeTable::parse(&loaded.source.text).map(toml::Spanned::into_inner).unwrap_or_default();
    let mut look = Look { root: &root, found: &mut found };
    look.config(Path::new(&loaded.source.name));
    look.state(loaded.document.agent.state.as_path(), &Place::top().key("agent").key("state"));
    let lease = Place::top().key("lease");
    match &loaded.document.lease {
        Lease::Embedded(_) => {}
        Lease::Etcd(etcd) => look.etcd(etcd, &lease),
        Lease::Kubernetes(kubernetes) => {
            look.private(kubernetes.kubeconfig.as_ref(), &lease.key("kubeconfig"))
        }
    }
    for (n, archive) in loaded.document.archives.iter().enumerate() {
        let at = Place::top().key("archive").index(n);
        look.private(Some(&archive.key_file), &at.key("key_file"));
        for (file, key) in
            [(&archive.access_key_file, "access_key_file"), (&archive.secret_key_file, "secret_key_file")]
        {
            if let Some(file) = file {
                look.secret(file, &at.key(key));
            }
        }
        look.private(archive.credentials_file.as_ref(), &at.key("credentials_file"));
    }
    for (n, workload) in loaded.document.workloads.iter().enumerate() {
        look.workload(workload, &Place::top().key("workload").index(n));
    }
    found.into_problems(loaded.source.clone())
}

struct Look<'a, 'i> {
    root: &'a DeTable<'i>,
    found: &'a mut Found,
}

impl Look<'_, '_> {
    fn report(&mut self, rule: Rule, at: &Place, message: impl Into<String>, help: impl Into<String>) {
        let span = at.span(self.root);
        self.found.add(Problem { rule, message: message.into(), help: help.into(), span });
    }

    fn etcd(&mut self, etcd: &EtcdLease, at: &Place) {
        self.anchors(etcd.ca_file.as_ref(), &at.key("ca_file"));
        self.anchors(etcd.cert_file.as_ref(), &at.key("cert_file"));
        self.private(etcd.key_file.as_ref(), &at.key("key_file"));
        if let Some(file) = &etcd.password_file {
            self.secret(file, &at.key("password_file"));
        }
    }

    fn workload(&mut self, workload: &Workload, at: &Place) {
        for (region, fence) in &workload.fence {
            let place = at.key("fence").key(region).key("command").index(0);
            self.program(fence.command.first().map_or("", String::as_str), &place);
        }
        for (n, database) in workload.databases.iter().enumerate() {
            let here = at.key("database").index(n);
            for (region, host) in &database.host {
                let place = here.key("host").key(region).key("command").index(0);
                self.program(host.command.first().map_or("", String::as_str), &place);
            }
            if let Some(file) = &database.password_file {
                self.secret(file, &here.key("password_file"));
            }
            self.anchors(database.ca_file.as_ref(), &here.key("ca_file"));
        }
        for (n, probe) in workload.probes.iter().enumerate() {
            if let Probe::Http(http) = probe {
                self.anchors(http.ca_file.as_ref(), &at.key("probe").index(n).key("ca_file"));
            }
        }
        for (n, name) in workload.names.iter().enumerate() {
            if let DnsName::Rfc2136(updated) = name {
                let place = at.key("dns").index(n).key("key_file");
                if self.secret(&updated.key_file, &place).is_some_and(|key| !is_base64(key.trim())) {
                    let help =
                        "the secret alone, as tsig-keygen prints it in quotes; not the whole key statement";
                    self.report(Rule::KeyNotBase64, &place, "the key file does not hold base64", help);
                }
            }
        }
        let canary = workload.canary.as_ref().and_then(|c| c.ca_file.as_ref());
        self.anchors(canary, &at.key("canary").key("ca_file"));
    }

    /// A file's content, or what is wrong with it.
    fn file(&mut self, path: &Path, at: &Place) -> Option<(Metadata, Vec<u8>)> {
        match read(path) {
            Ok(read) => Some(read),
            Err(error) => {
                let message = format!("`{}` cannot be read: {error}", path.display());
                let help = "it must be a file that the daemon's user may read";
                self.report(Rule::FileMissing, at, message, help);
                None
            }
        }
    }

    /// A secret of one line; nothing when something else was reported.
    fn secret(&mut self, file: &FilePath, at: &Place) -> Option<String> {
        let (metadata, bytes) = self.file(file.as_path(), at)?;
        self.exposed(file, &metadata, at);
        let text = String::from_utf8(bytes).unwrap_or_default();
        let line = text.strip_suffix('\n').unwrap_or(&text);
        if line.trim().is_empty() || line.contains(['\n', '\0']) {
            let message = format!("`{file}` does not hold one line of text");
            self.report(Rule::SecretNotOneLine, at, message, "the secret alone, on one line");
            return None;
        }
        Some(line.to_owned())
    }

    /// A file that only its owner may read, whatever is in it.
    fn private(&mut self, file: Option<&FilePath>, at: &Place) {
        if let Some(file) = file
            && let Some((metadata, _)) = self.file(file.as_path(), at)
        {
            self.exposed(file, &metadata, at);
        }
    }

    fn exposed(&mut self, file: &FilePath, metadata: &Metadata, at: &Place) {
        let mode = metadata.permissions().mode() & 0o777;
        // PostgreSQL's rule for private keys: the owner alone, or root and a group that may read.
        let allowed = if metadata.uid() == 0 { 0o740 } else { 0o700 };
        if mode & !allowed != 0 {
            let message = format!("`{file}` has mode {mode:04o}: others than its owner may use it");
            self.report(Rule::SecretExposed, at, message, format!("chmod 600 {file}"));
        }
    }

    fn anchors(&mut self, file: Option<&FilePath>, at: &Place) {
        let Some(file) = file else { return };
        let Some((_, bytes)) = self.file(file.as_path(), at) else { return };
        if !String::from_utf8_lossy(&bytes).contains("-----BEGIN CERTIFICATE-----") {
            let message = format!("`{file}` holds no certificate");
            self.report(Rule::NoCertificate, at, message, "PEM: it begins with -----BEGIN CERTIFICATE-----");
        }
    }

    fn program(&mut self, program: &str, at: &Place) {
        let path = Path::new(program);
        if !path.is_absolute() {
            return;
        }
        let wrong = match path.metadata() {
            Err(error) => error.to_string(),
            Ok(metadata) if !metadata.is_file() => "it is not a file".to_owned(),
            Ok(metadata) if metadata.permissions().mode() & 0o111 == 0 => "it is not executable".to_owned(),
            Ok(_) => return,
        };
        let message = format!("`{program}` cannot be run: {wrong}");
        self.report(Rule::FenceNotExecutable, at, message, "this would be found out when the region is lost");
    }

    fn config(&mut self, path: &Path) {
        let Ok(metadata) = path.metadata() else { return };
        let mode = metadata.permissions().mode() & 0o777;
        if mode & 0o022 != 0 {
            let message =
                format!("the configuration has mode {mode:04o}: others may change what lifeboat runs");
            let help = format!("chmod 644 {}", path.display());
            self.report(Rule::ConfigExposed, &Place::top(), message, help);
        }
    }

    fn state(&mut self, state: &Path, at: &Place) {
        let metadata = match state.metadata() {
            Ok(metadata) => metadata,
            // Made at start, by the daemon or by systemd.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => return self.state_fails(state, &error.to_string(), at),
        };
        if !metadata.is_dir() {
            return self.state_fails(state, "it is not a folder", at);
        }
        let mode = metadata.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            let message =
                format!("`{}` has mode {mode:04o}: others may read or change the journal", state.display());
            self.report(Rule::StateExposed, at, message, format!("chmod 700 {}", state.display()));
        }
        let trial = state.join(format!(".check-{}", std::process::id()));
        let tried = OpenOptions::new().write(true).create_new(true).open(&trial);
        match tried.and_then(|_| fs::remove_file(&trial)) {
            Ok(()) => {}
            Err(error) => self.state_fails(state, &error.to_string(), at),
        }
    }

    fn state_fails(&mut self, state: &Path, why: &str, at: &Place) {
        let message = format!("the journal cannot be kept in `{}`: {why}", state.display());
        self.report(Rule::StateNotWritable, at, message, "run this as the daemon's user");
    }
}

/// Reads a regular file of at most [`MOST`] bytes; a pipe would wait for ever.
fn read(path: &Path) -> io::Result<(Metadata, Vec<u8>)> {
    let metadata = path.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(MOST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MOST {
        return Err(io::Error::other("it is larger than 1 MiB"));
    }
    Ok((metadata, bytes))
}

/// Whether `text` is base64 with its padding (RFC 4648, section 4).
fn is_base64(text: &str) -> bool {
    let body = text.trim_end_matches('=');
    let padding = text.len() - body.len();
    let digits = body.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'+' || b == b'/');
    digits && !body.is_empty() && padding <= 2 && text.len().is_multiple_of(4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_base64_is() {
        for good in ["TWFu", "TWE=", "TQ==", "+/+/"] {
            assert!(is_base64(good), "{good}");
        }
        for bad in ["", "=", "TWF", "TQ===", "key \"x\";", "TW-u"] {
            assert!(!is_base64(bad), "{bad}");
        }
    }
}
