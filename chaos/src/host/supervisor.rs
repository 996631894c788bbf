//! The process that is a region's host, and the PostgreSQL it owns.
//!
//! **Invariant:** at most one order is carried out at a time, so two starts make one server.
//! **Invariant:** children are started by the process's first thread (a runtime of one thread), whose death is
//! their signal to die (see `process.rs`).

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::{Mutex, watch};

use super::{Answer, Directory, HostError, LINE_LIMIT, Order, io, line, remote, socket};
use crate::postgres::{self, data_folder, log_tail};
use crate::power;
use crate::process::{self, Owner, Signal, tethered};
use crate::region::Region;

/// How long a server may take to start; a busy machine with two cores takes a few seconds, one that was rewound
/// has to replay until it is consistent first.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// How long a fast stop may take. A primary waits for its standbys, which may be silent.
const STOPPED_WITHIN: Duration = Duration::from_secs(60);

/// A region's host.
pub(super) struct Supervisor {
    lab: PathBuf,
    region: Region,
    pub(super) folder: PathBuf,
    pub(super) owner: Owner,
    pub(super) secret: String,
    programs: PathBuf,
    server: Mutex<Option<Running>>,
}

struct Running {
    pid: i32,
    ended: watch::Receiver<bool>,
}

/// Serves a region of the lab in `lab` until the process ends: orders over the socket in the region's folder,
/// programs over `listen`. The caller must run it on a runtime of one thread.
///
/// # Errors
/// When the region's folder is not there, PostgreSQL is not on this machine, or an address cannot be listened on.
pub async fn serve(lab: &Path, region: Region, listen: SocketAddr) -> Result<(), HostError> {
    let lab = lab.canonicalize().map_err(io(format!("find the lab {}", lab.display())))?;
    let folder = region.folder(&lab);
    std::env::set_current_dir(&folder).map_err(io(format!("work in {}", folder.display())))?;
    let owner = Owner::of_postgres().map_err(io("find PostgreSQL's user"))?;
    let secret = Directory::read(&lab, None).map_err(io("read the lab's secret"))?.secret;
    let programs = postgres::programs()?;
    let path = socket(&lab, region);
    // The one of a host that was killed: there is one host of a region at a time.
    let _ = fs::remove_file(&path);
    let orders = UnixListener::bind(&path).map_err(io(format!("listen on {}", path.display())))?;
    // The database's user stops and starts it; nobody else but root does.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))
        .and_then(|()| owner.take(&path))
        .map_err(io("give the socket to PostgreSQL's user"))?;
    let calls = TcpListener::bind(listen).await.map_err(io(format!("listen on {listen}")))?;
    let server = Mutex::new(None);
    let host = Rc::new(Supervisor { lab, region, folder, owner, secret, programs, server });
    tokio::task::LocalSet::new().run_until(host.listen(orders, calls)).await
}

impl Supervisor {
    async fn listen(self: Rc<Supervisor>, orders: UnixListener, calls: TcpListener) -> Result<(), HostError> {
        loop {
            tokio::select! {
                biased;
                order = orders.accept() => {
                    let (stream, _) = order.map_err(io("take an order"))?;
                    let host = Rc::clone(&self);
                    // Carried out to its end, also when whoever gave it is gone.
                    tokio::task::spawn_local(async move { host.obey(stream).await });
                }
                call = calls.accept() => {
                    let (stream, _) = call.map_err(io("take a call"))?;
                    let host = Rc::clone(&self);
                    tokio::task::spawn_local(async move { remote::answer(&host, stream).await });
                }
            }
        }
    }

    async fn obey(&self, mut stream: UnixStream) {
        let mut text = String::new();
        let read = BufReader::new((&mut stream).take(LINE_LIMIT)).read_line(&mut text).await;
        let answer = match read.ok().and_then(|_| serde_json::from_str(&text).ok()) {
            Some(Order::Start) => self.start().await.map(Some),
            Some(Order::Stop) => self.stop().await.map(|()| None),
            // Only a look whether the host is up.
            None => return,
        };
        let answer = answer.map_or_else(Answer::Failed, Answer::Done);
        if let Ok(line) = line(&answer) {
            // It may be gone; the order is carried out all the same.
            let _ = stream.write_all(&line).await;
        }
    }

    pub(super) fn is_off(&self) -> bool {
        power::state(&self.lab, self.region).is_some()
    }

    async fn start(&self) -> Result<i32, String> {
        let mut server = self.server.lock().await;
        let running = match server.take() {
            Some(running) if !*running.ended.borrow() => running,
            _ if self.is_off() => return Err(format!("{} is powered off", self.region)),
            _ => self.launch().await?,
        };
        let (pid, ended) = (running.pid, running.ended.clone());
        *server = Some(running);
        let data = data_folder(&self.folder);
        let ready = async {
            while !ready(&data, pid) {
                if *ended.borrow() {
                    return false;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            true
        };
        match tokio::time::timeout(READY_WITHIN, ready).await {
            Ok(true) => Ok(pid),
            Ok(false) => {
                Err(format!("PostgreSQL ended while starting; its log ends with:\n{}", self.log_tail()))
            }
            Err(_) => Err(format!(
                "PostgreSQL is not ready after {} s; its log ends with:\n{}",
                READY_WITHIN.as_secs(),
                self.log_tail()
            )),
        }
    }

    async fn launch(&self) -> Result<Running, String> {
        self.bury().await?;
        let log = postgres::log_file(&self.folder);
        let open = || fs::OpenOptions::new().create(true).append(true).open(&log);
        let file = |error| format!("cannot open {}: {error}", log.display());
        let (output, errors) = (open().map_err(file)?, open().map_err(file)?);
        let mut command = tethered(&self.programs.join("postgres"), self.owner);
        command.args(["-D", "data"]).current_dir(&self.folder).env_clear();
        command.env("LC_ALL", "C.UTF-8").stdout(output).stderr(errors);
        let child = tokio::process::Command::from(command).spawn();
        let mut child = child.map_err(|error| format!("cannot start postgres: {error}"))?;
        let pid = child.id().and_then(|id| i32::try_from(id).ok()).ok_or("postgres ended at once")?;
        let (end, ended) = watch::channel(false);
        // Waited for at once, so that a server that ended is out of the process table.
        tokio::task::spawn_local(async move {
            // An error means that there is nothing to wait for.
            let _ = child.wait().await;
            end.send_replace(true);
        });
        Ok(Running { pid, ended })
    }

    /// Sees that no server of before is taken for a running one: a new one believes the process id in its lock
    /// file, even a zombie's. Those of a host that was killed are init's to bury; where init never does, the lock
    /// file goes, as after a reboot no process id in it means anything.
    async fn bury(&self) -> Result<(), String> {
        let lock = data_folder(&self.folder).join("postmaster.pid");
        let Some(pid) = lock_line(&lock, 0).and_then(|line| line.parse::<i32>().ok()) else { return Ok(()) };
        if process::alive(pid) {
            // Alive, and perhaps a stranger by now: PostgreSQL itself tells, and says so in its log.
            return Ok(());
        }
        let gone = async {
            while Path::new(&format!("/proc/{pid}")).exists() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        if tokio::time::timeout(Duration::from_secs(2), gone).await.is_ok() {
            return Ok(());
        }
        fs::remove_file(&lock).map_err(|error| format!("cannot remove {}: {error}", lock.display()))
    }

    async fn stop(&self) -> Result<(), String> {
        let mut server = self.server.lock().await;
        let Some(running) = server.as_mut() else { return Ok(()) };
        if !*running.ended.borrow() {
            process::signal(&[running.pid], Signal::INT).map_err(|error| error.to_string())?;
        }
        let ended = running.ended.wait_for(|ended| *ended);
        let ended = tokio::time::timeout(STOPPED_WITHIN, ended).await.is_ok();
        if !ended {
            return Err(format!("PostgreSQL is still there {} s after SIGINT", STOPPED_WITHIN.as_secs()));
        }
        *server = None;
        Ok(())
    }

    fn log_tail(&self) -> String {
        log_tail(&postgres::log_file(&self.folder))
    }
}

fn lock_line(lock: &Path, number: usize) -> Option<String> {
    fs::read_to_string(lock).ok()?.lines().nth(number).map(|line| line.trim().to_owned())
}

/// Whether the server says in its lock file that it takes connections: line 1 is its process, line 8 its state,
/// which is what pg_ctl waits for too (PostgreSQL's `pidfile.h`).
fn ready(data: &Path, pid: i32) -> bool {
    let lock = data.join("postmaster.pid");
    lock_line(&lock, 0).is_some_and(|line| line == pid.to_string())
        && lock_line(&lock, 7).is_some_and(|state| state == "ready" || state == "standby")
}
