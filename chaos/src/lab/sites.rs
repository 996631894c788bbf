//! The sites of a lab.

use super::Lab;
use crate::proxy::Fault;
use crate::region::Site;

impl Lab {
    /// Gives every path to a site the same fault.
    pub fn to_site(&self, site: Site, fault: Fault) {
        let paths = self.proxies.iter().filter(|((_, to), _)| to.site() == Some(site));
        paths.for_each(|(_, proxy)| proxy.set(fault));
    }
}
