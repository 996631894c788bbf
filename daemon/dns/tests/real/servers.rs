//! Real name servers from the system's packages, each in a folder and on a port of its own.
//!
//! **Invariant:** a server is ended by its process id when its handle is dropped, also while panicking.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// The zone that every server of the tests holds.
pub(crate) const ZONE: &str = "example.test.";
/// The key that may change it.
pub(crate) const KEY_NAME: &str = "drill.";
/// Its secret: 32 bytes that are nobody's.
pub(crate) const SECRET: &str = "bGlmZWJvYXQgbGlmZWJvYXQgbGlmZWJvYXQgISEhISE=";
/// Another secret under the same name.
pub(crate) const OTHER: &str = "YW5vdGhlciBzZWNyZXQgYW5vdGhlciBzZWNyZXQgISE=";

/// One running server.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) folder: TempDir,
    child: Child,
}

/// How a BIND primary tells its secondary.
#[derive(Clone, Copy)]
pub(crate) struct Notify {
    pub(crate) secondary: SocketAddr,
    /// The `notify-delay` statement, or nothing for BIND's default of 5 s.
    pub(crate) delay: &'static str,
}

/// An address nobody else uses. BIND listens only on addresses that an interface has, so it is 127.0.0.1
/// and a port below the range from which the system takes ports for outgoing connections.
pub(crate) fn free_address() -> SocketAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let offset = std::process::id().wrapping_mul(61).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = 20_000 + u16::try_from(offset % 12_000).expect("below 12000");
        let address = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
        if UdpSocket::bind(address).is_ok() && TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

impl Server {
    fn start(folder: TempDir, address: SocketAddr, program: &str, arguments: &[String]) -> Self {
        // A copy, because security profiles of distributions bind the installed path to system folders.
        let copy = folder.path().join(Path::new(program).file_name().expect("a program"));
        fs::copy(program, &copy).unwrap_or_else(|error| panic!("{program} must be installed: {error}"));
        let log = fs::File::create(folder.path().join("log")).expect("a log");
        let mut command = Command::new(&copy);
        command.args(arguments).current_dir(folder.path()).stdin(Stdio::null());
        command.stdout(log.try_clone().expect("a log")).stderr(log);
        // Another test may be starting a child that still holds our copy open for writing, for an instant.
        let started = Instant::now();
        let child = loop {
            match command.spawn() {
                Ok(child) => break child,
                Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy => {
                    assert!(started.elapsed() < Duration::from_secs(10), "{error}");
                    std::thread::yield_now();
                }
                Err(error) => panic!("{program}: {error}"),
            }
        };
        Self { address, folder, child }
    }

    /// What the server wrote so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Waits until it answers for `name`.
    pub(crate) fn ready(self, name: &str) -> Self {
        let waited = Instant::now();
        while !dig(self.address, &["+tries=1", "+time=1", "+norec", name, "SOA"]).contains("status: NOERROR")
        {
            assert!(waited.elapsed() < Duration::from_secs(20), "not ready: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        self
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A stopped process takes the kill as well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs dig, the judge, and returns all it prints.
pub(crate) fn dig(server: SocketAddr, arguments: &[&str]) -> String {
    let output = Command::new("dig")
        .arg(format!("@{}", server.ip()))
        .args(["-p", &server.port().to_string()])
        .args(arguments)
        .env("HOME", "/nonexistent")
        .output()
        .expect("dig (bind9-dnsutils) must be installed");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn folder() -> TempDir {
    tempfile::Builder::new().prefix("lifeboat-dns-").tempdir().expect("a folder")
}

fn write(folder: &TempDir, name: &str, text: &str) -> PathBuf {
    let path = folder.path().join(name);
    fs::write(&path, text).expect("a file");
    path
}

fn zone_text(server: SocketAddr) -> String {
    format!(
        "$ORIGIN {ZONE}\n$TTL 10\n@ SOA ns1 hostmaster 1 60 30 604800 5\n@ NS ns1\nns1 A {}\n\
         shop A 192.0.2.80\ntext TXT \"hello\"\nmail MX 10 ns1\n",
        server.ip()
    )
}

fn bind_options(address: SocketAddr, dir: &Path, extra: &str) -> String {
    let (ip, port, dir) = (address.ip(), address.port(), dir.display());
    format!(
        "options {{ directory \"{dir}\"; listen-on port {port} {{ {ip}; }}; listen-on-v6 {{ none; }};
         pid-file \"{dir}/pid\"; session-keyfile \"{dir}/session\"; lock-file none; recursion no;
         dnssec-validation no; empty-zones-enable no; allow-transfer {{ 127.0.0.0/8; }}; {extra} }};
         controls {{ }};
         key \"{KEY_NAME}\" {{ algorithm hmac-sha256; secret \"{SECRET}\"; }};\n"
    )
}

/// BIND 9 as the primary of the zone.
pub(crate) fn bind(notify: Option<Notify>) -> Server {
    let (folder, address) = (folder(), free_address());
    let extra = match notify {
        Some(Notify { secondary, delay }) => {
            format!(
                "notify explicit; also-notify {{ {} port {}; }}; {delay}",
                secondary.ip(),
                secondary.port()
            )
        }
        None => "notify no;".to_owned(),
    };
    let zone = format!(
        "zone \"{ZONE}\" {{ type primary; file \"zone\"; update-policy {{ grant {KEY_NAME} zonesub ANY; }}; }};
         zone \"locked.test.\" {{ type primary; file \"locked\"; }};\n"
    );
    write(&folder, "zone", &zone_text(address));
    write(&folder, "locked", &zone_text(address).replace(ZONE, "locked.test."));
    let text = bind_options(address, folder.path(), &extra) + &zone;
    let config = write(&folder, "named.conf", &text).display().to_string();
    let arguments = ["-c", &config, "-g", "-n", "1"].map(str::to_owned);
    Server::start(folder, address, "/usr/sbin/named", &arguments).ready(ZONE)
}

/// BIND 9 as a secondary on `address`, of `primary`.
pub(crate) fn bind_secondary(address: SocketAddr, primary: SocketAddr) -> Server {
    let folder = folder();
    let zone = format!(
        "zone \"{ZONE}\" {{ type secondary; file \"copy\"; primaries {{ {} port {}; }}; }};\n",
        primary.ip(),
        primary.port()
    );
    let text = bind_options(address, folder.path(), "notify no; min-refresh-time 60;") + &zone;
    let config = write(&folder, "named.conf", &text).display().to_string();
    let arguments = ["-c", &config, "-g", "-n", "1"].map(str::to_owned);
    Server::start(folder, address, "/usr/sbin/named", &arguments).ready(ZONE)
}

/// Knot DNS as the primary of the zone.
pub(crate) fn knot() -> Server {
    let (folder, address) = (folder(), free_address());
    // Knot makes the files of its journal, not the folder they are in.
    fs::create_dir(folder.path().join("db")).expect("a folder");
    let dir = folder.path().display().to_string();
    write(&folder, "zone", &zone_text(address));
    write(&folder, "locked", &zone_text(address).replace(ZONE, "locked.test."));
    let text = format!(
        "server:\n  rundir: {dir}\n  listen: {}@{}\n  udp-workers: 1\n  tcp-workers: 1\n  background-workers: 1\n\
         database:\n  storage: {dir}/db\n\
         log:\n  - target: stderr\n    any: info\n\
         key:\n  - id: {KEY_NAME}\n    algorithm: hmac-sha256\n    secret: {SECRET}\n\
         acl:\n  - id: drill\n    key: {KEY_NAME}\n    action: [update]\n\
         template:\n  - id: default\n    storage: {dir}\n\
         zone:\n  - domain: {ZONE}\n    file: zone\n    acl: drill\n  - domain: locked.test.\n    file: locked\n",
        address.ip(),
        address.port()
    );
    let config = write(&folder, "knot.conf", &text).display().to_string();
    let arguments = ["-c".to_owned(), config];
    Server::start(folder, address, "/usr/sbin/knotd", &arguments).ready(ZONE)
}

/// PowerDNS with SQLite as the primary of the zone, with more settings.
pub(crate) fn powerdns(extra: &str) -> Server {
    let (folder, address) = (folder(), free_address());
    let dir = folder.path().display().to_string();
    let sql = format!("{}{}", include_str!("powerdns.sql"), powerdns_zone());
    let script = write(&folder, "zone.sql", &sql);
    let made = Command::new("sqlite3")
        .arg(folder.path().join("zone.db"))
        .stdin(fs::File::open(script).expect("a script"))
        .status()
        .expect("sqlite3 must be installed");
    assert!(made.success(), "sqlite3 refused the schema");
    let text = format!(
        "launch=gsqlite3\ngsqlite3-database={dir}/zone.db\ngsqlite3-pragma-synchronous=0\nlocal-address={}\n\
         local-port={}\nsocket-dir={dir}\ndaemon=no\nguardian=no\ndisable-syslog=yes\nwrite-pid=no\n\
         dnsupdate=yes\nallow-dnsupdate-from=127.0.0.0/8\nsecurity-poll-suffix=\nwebserver=no\nloglevel=6\n{extra}\n",
        address.ip(),
        address.port()
    );
    write(&folder, "pdns.conf", &text);
    let arguments = [format!("--config-dir={dir}")];
    Server::start(folder, address, "/usr/sbin/pdns_server", &arguments).ready(ZONE)
}

fn powerdns_zone() -> String {
    let record = |name: &str, kind: &str, content: &str| {
        format!(
            "INSERT INTO records (domain_id,name,type,content,ttl,prio,auth) \
             VALUES ((SELECT id FROM domains WHERE '{name}' LIKE '%'||name),'{name}','{kind}','{content}',10,0,1);\n"
        )
    };
    let mut sql = String::new();
    for zone in [ZONE.trim_end_matches('.'), "locked.test"] {
        sql += &format!("INSERT INTO domains (name,type) VALUES ('{zone}','MASTER');\n");
        sql += &record(zone, "SOA", &format!("ns1.{zone} hostmaster.{zone} 1 60 30 604800 5"));
        sql += &record(zone, "NS", &format!("ns1.{zone}"));
        sql += &record(&format!("shop.{zone}"), "A", "192.0.2.80");
    }
    let key = KEY_NAME.trim_end_matches('.');
    sql +=
        &format!("INSERT INTO tsigkeys (name,algorithm,secret) VALUES ('{key}','hmac-sha256','{SECRET}');\n");
    // A zone without such a line takes updates from everybody in allow-dnsupdate-from.
    for (zone, who) in [(ZONE.trim_end_matches('.'), key), ("locked.test", "somebody")] {
        sql += &format!(
            "INSERT INTO domainmetadata (domain_id,kind,content) \
             SELECT id,'TSIG-ALLOW-DNSUPDATE','{who}' FROM domains WHERE name='{zone}';\n"
        );
    }
    sql
}

/// unbound, a resolver that asks `authority` for `zone`.
pub(crate) fn unbound(zone: &str, authority: SocketAddr) -> Server {
    let (folder, address) = (folder(), free_address());
    let dir = folder.path().display().to_string();
    let text = format!(
        "server:\n  directory: \"{dir}\"\n  chroot: \"\"\n  username: \"\"\n  pidfile: \"\"\n  use-syslog: no\n\
         \x20 interface: {}@{}\n  do-daemonize: no\n  do-not-query-localhost: no\n  num-threads: 1\n\
         \x20 access-control: 127.0.0.0/8 allow_snoop\n  module-config: \"iterator\"\n  local-zone: \"test.\" nodefault\n\
         \x20 use-caps-for-id: yes\n\
         stub-zone:\n  name: \"{zone}\"\n  stub-addr: {}@{}\n  stub-no-cache: no\n\
         remote-control:\n  control-enable: no\n",
        address.ip(),
        address.port(),
        authority.ip(),
        authority.port()
    );
    let config = write(&folder, "unbound.conf", &text).display().to_string();
    let arguments = ["-d", "-c", &config].map(str::to_owned);
    Server::start(folder, address, "/usr/sbin/unbound", &arguments).ready(zone)
}
