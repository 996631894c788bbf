//! The sentry beside a region's database: what its `sentry.toml` says.

use std::fmt::Write;
use std::path::Path;

use serde_json::Value;

use crate::agent::{Council, WORKLOAD};
use crate::network::Network;
use crate::region::{From, Region, Site, To};

/// The text of `sentry.toml`. `length` is how long the write lease lasts, as in the file; a council without agents
/// makes a file that is good for its key alone.
#[must_use]
pub fn config(
    lab: &Path,
    region: Region,
    data: &Path,
    network: &Network,
    council: &Council,
    length: &str,
) -> String {
    let quoted = |text: &dyn std::fmt::Display| Value::from(text.to_string()).to_string();
    let folder = region.folder(lab).join("sentry");
    let from = From::Site(region.into());
    let etcd = Site::ALL.map(|to| format!("\"http://{}\"", network.path(from, To::Etcd(to))));
    let mut text = format!(
        "# Written by chaos for one lab.\nworkload = \"{WORKLOAD}\"\nregion = \"{region}\"\ndata = {}\nstate = {}\n\
         key_file = {}\nlength = {}\n\n[lease]\nkind = \"etcd\"\ncluster = \"{WORKLOAD}\"\nendpoints = [{}]\n\n",
        quoted(&data.display()),
        quoted(&folder.join("state").display()),
        quoted(&folder.join("sentry.key").display()),
        quoted(&length),
        etcd.join(", "),
    );
    for (site, key) in &council.agents {
        let address = network.path(from, To::Agent(*site));
        // Writing to a String cannot fail.
        let _ = write!(text, "[[agents]]\nname = \"{site}\"\naddress = \"{address}\"\nkey = \"{key}\"\n\n");
    }
    text
}
