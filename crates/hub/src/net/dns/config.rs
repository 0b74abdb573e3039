//! What the system says about names: `/etc/resolv.conf` and `/etc/hosts`.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6};
use std::time::Duration;

/// How names are looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// Who is asked, one after the other.
    pub servers: Vec<SocketAddr>,
    /// Domains that are put behind a short name.
    pub search: Vec<String>,
    /// A name with at least so many dots is first asked for as it is. 1 if nothing is said.
    pub ndots: usize,
    /// How long one server has for an answer. 5 s if nothing is said.
    pub timeout: Duration,
    /// How often all servers are asked before giving up. 2 if nothing is said.
    pub attempts: u32,
    /// Whether the servers take turns in being asked first.
    pub rotate: bool,
    /// Whether to ask by TCP only.
    pub tcp_only: bool,
    /// Names that are known without asking.
    pub hosts: Hosts,
    /// Answers that are kept at most. At the limit, the oldest one goes.
    pub cache_entries_max: usize,
    /// An answer is kept no longer than this, whatever its server says.
    pub ttl_max: Duration,
    /// That a name does not exist is kept no longer than this, whatever its server says.
    pub negative_ttl_max: Duration,
}

impl Default for Config {
    /// Asks a server on this machine, as the C library does when it is told nothing.
    fn default() -> Self {
        Self {
            servers: vec![SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 53)],
            search: Vec::new(),
            ndots: 1,
            timeout: Duration::from_secs(5),
            attempts: 2,
            rotate: false,
            tcp_only: false,
            hosts: Hosts::default(),
            cache_entries_max: 1000,
            ttl_max: Duration::from_secs(24 * 3600),
            negative_ttl_max: Duration::from_secs(300),
        }
    }
}

impl Config {
    /// Reads what `resolv.conf(5)` describes. Lines that make no sense are skipped, as the C library does.
    pub fn parse_resolv_conf(text: &str) -> Self {
        let mut config = Self { servers: Vec::new(), ..Self::default() };
        for line in text.lines() {
            let line = line.split(['#', ';']).next().unwrap_or_default();
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => config.servers.extend(words.next().and_then(server)),
                // The last of them counts.
                Some("search") => config.search = words.map(domain).collect(),
                Some("domain") => config.search = words.take(1).map(domain).collect(),
                Some("options") => words.for_each(|word| config.option(word)),
                _ => {}
            }
        }
        config.search.retain(|domain| !domain.is_empty());
        if config.servers.is_empty() {
            config.servers = Self::default().servers;
        }
        config
    }

    /// One word of an `options` line; bounds as the C library's.
    fn option(&mut self, word: &str) {
        let (name, value) = word.split_once(':').unwrap_or((word, ""));
        let value = value.parse::<u32>().ok();
        match (name, value) {
            ("ndots", Some(value)) => self.ndots = value.min(15) as usize,
            ("timeout", Some(value)) => {
                self.timeout = Duration::from_secs(u64::from(value.clamp(1, 30)));
            }
            ("attempts", Some(value)) => self.attempts = value.clamp(1, 5),
            ("rotate", None) => self.rotate = true,
            ("use-vc", None) => self.tcp_only = true,
            _ => {}
        }
    }

    /// The names to ask for, in order, when `host` is wanted.
    pub(super) fn candidates(&self, host: &str) -> Vec<String> {
        if let Some(absolute) = host.strip_suffix('.') {
            return vec![absolute.to_owned()];
        }
        let searched = self.search.iter().map(|domain| format!("{host}.{domain}"));
        let mut names: Vec<String> = searched.collect();
        let as_it_is = if self.ndots <= host.matches('.').count() { 0 } else { names.len() };
        names.insert(as_it_is, host.to_owned());
        names
    }
}

fn domain(word: &str) -> String {
    word.trim_matches('.').to_ascii_lowercase()
}

/// An address, of IPv6 with its interface if need be.
fn server(word: &str) -> Option<SocketAddr> {
    if let Ok(ip) = word.parse::<IpAddr>() {
        return Some(SocketAddr::new(ip, 53));
    }
    let (ip, interface) = word.split_once('%')?;
    let index = interface.parse().ok()?;
    Some(SocketAddrV6::new(ip.parse().ok()?, 53, 0, index).into())
}

/// Names of this network that are known without asking: `/etc/hosts`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hosts {
    by_name: HashMap<String, Vec<IpAddr>>,
    /// The names of each address, the first of them its proper one.
    by_addr: HashMap<IpAddr, Vec<String>>,
}

impl Hosts {
    /// Reads what `hosts(5)` describes. Lines that make no sense are skipped.
    pub fn parse(text: &str) -> Self {
        let mut hosts = Self::default();
        for line in text.lines() {
            let line = line.split('#').next().unwrap_or_default();
            let mut words = line.split_whitespace();
            let Some(ip) = words.next().and_then(|word| word.parse::<IpAddr>().ok()) else {
                continue;
            };
            for name in words {
                hosts.insert(name, ip);
            }
        }
        hosts
    }

    /// Adds a name of an address.
    pub fn insert(&mut self, name: &str, ip: IpAddr) {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let addrs = self.by_name.entry(name.clone()).or_default();
        if !addrs.contains(&ip) {
            addrs.push(ip);
        }
        let names = self.by_addr.entry(ip).or_default();
        if !names.contains(&name) {
            names.push(name);
        }
    }

    /// The addresses of a name, in the file's order; none when it is not known.
    pub fn addrs(&self, name: &str) -> &[IpAddr] {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        self.by_name.get(&name).map_or(&[], Vec::as_slice)
    }

    /// The names of an address, its proper one first; none when it is not known.
    pub fn names(&self, ip: IpAddr) -> &[String] {
        self.by_addr.get(&ip).map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_is_read() {
        let config = Config::parse_resolv_conf(
            "# a comment\nnameserver 192.0.2.1 ; behind it\nnameserver fe80::1%3\nnameserver nonsense\n\
             domain first.example\nsearch A.example. b.example\n\
             options ndots:2 timeout:90 attempts:0 rotate use-vc edns0 ndots:x\nsortlist 10.0.0.0\n",
        );
        assert_eq!(config.servers[0], "192.0.2.1:53".parse().unwrap());
        assert_eq!(config.servers[1], "[fe80::1%3]:53".parse().unwrap());
        assert_eq!(config.servers.len(), 2);
        assert_eq!(config.search, ["a.example", "b.example"]);
        assert_eq!((config.ndots, config.timeout.as_secs(), config.attempts), (2, 30, 1));
        assert!(config.rotate && config.tcp_only);
        assert_eq!(Config::parse_resolv_conf(""), Config::default());
    }

    #[test]
    fn names_are_searched_in_the_order_of_their_dots() {
        let config = Config::parse_resolv_conf("search a.example b.example\n");
        let check = |host: &str, want: &[&str]| assert_eq!(config.candidates(host), want);
        check("db", &["db.a.example", "db.b.example", "db"]);
        check("db.x", &["db.x", "db.x.a.example", "db.x.b.example"]);
        check("db.", &["db"]);
    }

    #[test]
    fn hosts_are_read() {
        let hosts = Hosts::parse(
            "127.0.0.1 localhost # here\n::1 localhost ip6-localhost\n\nnonsense x\n192.0.2.7\tDB.example db\n",
        );
        let addrs =
            |name: &str| hosts.addrs(name).iter().map(IpAddr::to_string).collect::<Vec<_>>();
        assert_eq!(addrs("LOCALHOST"), ["127.0.0.1", "::1"]);
        assert_eq!(addrs("db.example."), ["192.0.2.7"]);
        assert!(addrs("x").is_empty());
        assert_eq!(hosts.names("192.0.2.7".parse().unwrap()), ["db.example", "db"]);
    }
}
