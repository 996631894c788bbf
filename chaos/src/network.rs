//! The addresses of one lab.
//!
//! Linux answers on all of 127.0.0.0/8, so each lab takes a /16 of it: the regions then have addresses of
//! their own, and a DNS name moves from one address to another while the port stays.
//!
//! **Invariant:** two labs never share an address: the /16 is claimed by a listener that is held as long as
//! the lab lives, and which the kernel gives back when it dies.
//! **Invariant:** loopback only.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};

use crate::region::{From, Region, Site, To};

/// The port of the claim in every /16.
const CLAIM: u16 = 19_999;
/// Ports are looked for below the ephemeral range (32768 up), so that no outgoing connection takes one first.
const PORTS: std::ops::Range<u16> = 20_100..32_000;
/// How many witnesses the agent has.
pub const WITNESSES: u8 = 3;

/// A claimed /16 of loopback and the ports used in it.
#[derive(Debug)]
pub struct Network {
    net: u8,
    /// The port of every PostgreSQL server, and of the paths to them.
    pub postgres: u16,
    /// The port of every shop, and of the paths to them.
    pub shop: u16,
    /// The port of every database host, and of the paths to them.
    pub host: u16,
    /// The port of every DNS authority.
    pub dns: u16,
    /// The port of every etcd member, for its clients, and of the paths to them.
    pub etcd: u16,
    /// The port of every etcd member, for the others.
    pub peer: u16,
    /// The port of every agent, for other agents and sentries, and of the paths to them.
    pub agent: u16,
    /// The port of the witnesses.
    pub witness: u16,
    _claim: TcpListener,
}

impl Network {
    /// Claims a free /16 and free ports in it.
    ///
    /// # Errors
    /// When all are taken (63 labs at once), or no port is free on all addresses.
    pub fn claim() -> io::Result<Network> {
        // 127.0/16 is left to others, and different process ids start at different places.
        let start = std::process::id() % 63;
        let mut taken = io::Error::from(io::ErrorKind::AddrInUse);
        for step in 0..63 {
            let net = u8::try_from(64 + (start + step) % 63).unwrap_or(64);
            match TcpListener::bind((Ipv4Addr::new(127, net, 0, 1), CLAIM)) {
                Ok(claim) => return Network::with(net, claim),
                Err(error) => taken = error,
            }
        }
        Err(taken)
    }

    fn with(net: u8, claim: TcpListener) -> io::Result<Network> {
        let mut ports = PORTS;
        let mut next = |hosts: &[Ipv4Addr]| {
            ports
                .by_ref()
                .find(|port| hosts.iter().all(|host| free(*host, *port)))
                .ok_or(io::ErrorKind::AddrInUse)
        };
        let at = |third: u8, last: u8| Ipv4Addr::new(127, net, third, last);
        // The doors of the regions, and the paths to them from the agent, the sites and the other region.
        let both = |third: u8| vec![at(third, 1), at(third, 2)];
        let paths: Vec<_> = [4, 11, 12, 13].into_iter().flat_map(both).collect();
        let doors = vec![at(1, 10), at(2, 10)];
        let postgres = next(&[doors.clone(), paths.clone(), both(5)].concat())?;
        let shop = next(&[doors.clone(), paths.clone()].concat())?;
        let host = next(&[doors, paths].concat())?;
        let dns = next(&[at(3, 53), at(3, 1), at(3, 2), at(3, 3)])?;
        let three = |third: u8, from: u8| (0..3).map(move |number| at(third, from + number));
        let witnesses = [4, 11, 12, 13].into_iter().flat_map(|third| three(third, 11));
        let witness = next(&three(6, 1).chain(witnesses).collect::<Vec<_>>())?;
        let paths = |from| (11..=13).flat_map(move |third| three(third, from));
        let etcd = next(&three(7, 1).chain(paths(21)).collect::<Vec<_>>())?;
        let peer = next(&three(7, 1).chain(three(8, 1)).collect::<Vec<_>>())?;
        let agent = next(&three(9, 1).chain(paths(31)).collect::<Vec<_>>())?;
        Ok(Network { net, postgres, shop, host, dns, etcd, peer, agent, witness, _claim: claim })
    }

    fn at(&self, third: u8, last: u8) -> Ipv4Addr {
        Ipv4Addr::new(127, self.net, third, last)
    }

    /// The address of a region: what the shop's DNS name says when the shop lives there.
    #[must_use]
    pub fn host(&self, region: Region) -> Ipv4Addr {
        match region {
            Region::East => self.at(1, 10),
            Region::West => self.at(2, 10),
        }
    }

    /// Where a thing itself listens.
    #[must_use]
    pub fn door(&self, to: To) -> SocketAddr {
        match to {
            To::Postgres(region) => (self.host(region), self.postgres).into(),
            To::Shop(region) => (self.host(region), self.shop).into(),
            To::Host(region) => (self.host(region), self.host).into(),
            To::Witness(number) => (self.at(6, number + 1), self.witness).into(),
            To::Etcd(site) => (self.at(7, place(site)), self.etcd).into(),
            To::Agent(site) => (self.at(9, place(site)), self.agent).into(),
        }
    }

    /// Where the path from one place to a thing begins: the address of its fault proxy.
    #[must_use]
    pub fn path(&self, from: From, to: To) -> SocketAddr {
        let third = match from {
            From::Agent => 4,
            From::Region(_) => 5,
            From::Site(site) => 10 + place(site),
        };
        match to {
            To::Postgres(region) => (self.at(third, place(region.into())), self.postgres).into(),
            To::Shop(region) => (self.at(third, place(region.into())), self.shop).into(),
            To::Host(region) => (self.at(third, place(region.into())), self.host).into(),
            To::Witness(number) => (self.at(third, number + 11), self.witness).into(),
            To::Etcd(site) => (self.at(third, 20 + place(site)), self.etcd).into(),
            To::Agent(site) => (self.at(third, 30 + place(site)), self.agent).into(),
        }
    }

    /// Where the etcd member of a site listens for the others.
    #[must_use]
    pub fn peer(&self, site: Site) -> SocketAddr {
        (self.at(7, place(site)), self.peer).into()
    }

    /// Where the others find it: the address of the junction before it.
    #[must_use]
    pub fn advertised(&self, site: Site) -> SocketAddr {
        (self.at(8, place(site)), self.peer).into()
    }

    /// Where the DNS authority of a single agent listens, UDP and TCP.
    #[must_use]
    pub fn authority(&self) -> SocketAddr {
        (self.at(3, 53), self.dns).into()
    }

    /// Where that of a site's agent does.
    #[must_use]
    pub fn authority_of(&self, site: Site) -> SocketAddr {
        (self.at(3, place(site)), self.dns).into()
    }
}

impl Network {
    /// All DNS authorities: those of the sites, or that of a single agent.
    #[must_use]
    pub fn authorities(&self, sites: bool) -> Vec<SocketAddr> {
        if sites { Site::ALL.map(|site| self.authority_of(site)).to_vec() } else { vec![self.authority()] }
    }
}

/// The last part of its addresses.
fn place(site: Site) -> u8 {
    match site {
        Site::East => 1,
        Site::West => 2,
        Site::Witness => 3,
    }
}

fn free(host: Ipv4Addr, port: u16) -> bool {
    TcpListener::bind((host, port)).is_ok() && UdpSocket::bind((host, port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_labs_share_no_address_and_a_path_is_not_the_door() {
        let (one, two) = (Network::claim().unwrap(), Network::claim().unwrap());
        assert_ne!(one.host(Region::East), two.host(Region::East));
        assert_ne!(one.host(Region::East), one.host(Region::West));
        for region in Region::ALL {
            for to in [To::Postgres(region), To::Shop(region), To::Host(region)] {
                assert_ne!(one.path(From::Agent, to), one.door(to));
                assert_ne!(one.path(From::Agent, to), one.path(From::Region(region.other()), to));
            }
        }
        let free_again = one.host(Region::East);
        drop(one);
        assert!(TcpListener::bind((free_again, 0)).is_ok());
    }
}
