//! Networks, as people write them: `10.0.0.0/8`.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// All addresses that begin with the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// Those of IPv4 in their own form; the bits behind the prefix are 0.
    bits: u128,
    /// Bits that count, of those of the family.
    prefix: u8,
    is_ipv4: bool,
}

impl Network {
    /// Whether an address is one of it. One of IPv4 may be written in IPv6.
    pub fn contains(&self, address: IpAddr) -> bool {
        let (bits, is_ipv4) = bits(address);
        is_ipv4 == self.is_ipv4 && bits & mask(self.prefix, is_ipv4) == self.bits
    }
}

impl FromStr for Network {
    type Err = String;

    /// An address with the number of bits that count, or alone.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("'{text}' is no network: write 10.0.0.0/8, 2001:db8::/32 or an address");
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let (bits, is_ipv4) = bits(address);
        let width = if is_ipv4 { 32 } else { 128 };
        let prefix = match prefix {
            None => width,
            Some(prefix) => prefix.parse().map_err(|_| wrong())?,
        };
        if width < prefix {
            return Err(wrong());
        }
        Ok(Self { bits: bits & mask(prefix, is_ipv4), prefix, is_ipv4 })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address: IpAddr = match self.is_ipv4 {
            true => IpAddr::V4((self.bits as u32).into()),
            false => IpAddr::V6(self.bits.into()),
        };
        write!(f, "{address}/{}", self.prefix)
    }
}

fn bits(address: IpAddr) -> (u128, bool) {
    match address.to_canonical() {
        IpAddr::V4(address) => (u32::from(address).into(), true),
        IpAddr::V6(address) => (address.into(), false),
    }
}

fn mask(prefix: u8, is_ipv4: bool) -> u128 {
    let width: u32 = if is_ipv4 { 32 } else { 128 };
    let all = u128::MAX >> (128 - width);
    let behind = width - u32::from(prefix);
    all.checked_shl(behind).unwrap_or(0) & all
}

#[cfg(test)]
mod tests {
    use super::Network;

    #[test]
    fn addresses_are_in_networks_or_not() {
        for (network, address, want) in [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.1.2.3/8", "10.9.9.9", true),
            ("10.0.0.0/8", "::ffff:10.0.0.1", true),
            ("10.0.0.1", "10.0.0.1", true),
            ("10.0.0.1", "10.0.0.2", false),
            ("0.0.0.0/0", "1.2.3.4", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("2001:db8::/32", "2001:db8:ffff::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
            ("::/0", "2001:db8::1", true),
            ("::1", "::1", true),
        ] {
            let network: Network = network.parse().unwrap();
            assert_eq!(network.contains(address.parse().unwrap()), want, "{network} {address}");
        }
    }

    #[test]
    fn what_is_no_network_says_so() {
        for text in ["", "10", "10.0.0.0/33", "10.0.0.0/-1", "::/129", "10.0.0.0/", "a/8"] {
            assert!(text.parse::<Network>().unwrap_err().contains("is no network"), "{text}");
        }
        assert_eq!("10.1.2.3/8".parse::<Network>().unwrap().to_string(), "10.0.0.0/8");
    }
}
