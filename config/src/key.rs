//! An agent's or a sentry's public key (Ed25519), in base64.
//!
//! **Invariant:** one key has one writing (RFC 4648, section 4, with its padding), so that two of them can be compared.

use std::fmt;

use crate::form::{Flaw, text_form};
use crate::rule::Rule;

/// The digits of base64, in order.
const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// How long a key is when it is written: 32 bytes make 43 digits and one sign of padding.
const WRITTEN: usize = 44;

/// The public half of a signing key, 32 bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PublicKey(pub [u8; 32]);

text_form! {
    PublicKey, "lifeboat-public-key", r"^[A-Za-z0-9+/]{43}=$",
    "A public key, 32 bytes in base64, as `lifeboat key` prints it."
}

impl PublicKey {
    pub(crate) fn read(text: &str) -> Result<Self, Flaw> {
        // Not repeated: who writes the wrong half of a key here has written a secret.
        let flaw = || {
            let help = "32 bytes in base64, as `lifeboat key` prints it on the agent it belongs to; never the key file itself";
            Flaw::new(Rule::BadPublicKey, "not a public key", help)
        };
        let body = text.strip_suffix('=').filter(|_| text.len() == WRITTEN).ok_or_else(flaw)?;
        let (mut bytes, mut bits, mut held, mut at) = ([0; 32], 0_u32, 0_u32, 0);
        for digit in body.bytes() {
            let value = DIGITS.iter().position(|d| *d == digit).ok_or_else(flaw)?;
            bits = bits << 6 | u32::try_from(value).map_err(|_| flaw())?;
            held += 6;
            if held >= 8 {
                held -= 8;
                *bytes.get_mut(at).ok_or_else(flaw)? =
                    u8::try_from(bits >> held & 0xff).map_err(|_| flaw())?;
                at += 1;
                bits &= (1 << held) - 1;
            }
        }
        // What is left over belongs to no byte.
        if bits == 0 { Ok(Self(bytes)) } else { Err(flaw()) }
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::with_capacity(WRITTEN);
        for chunk in self.0.chunks(3) {
            let byte = |n: usize| u32::from(chunk.get(n).copied().unwrap_or_default());
            let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
            for n in 0..4_usize {
                let digit = DIGITS[(bits >> (18 - 6 * n) & 0x3f) as usize];
                text.push(if n <= chunk.len() { char::from(digit) } else { '=' });
            }
        }
        f.pad(&text)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_as_it_is_written() {
        // The public keys of RFC 8032, section 7.1, tests 1 and 2.
        let first = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
        let key = PublicKey::read(first).unwrap();
        assert_eq!(key.0[..4], [0xd7, 0x5a, 0x98, 0x01]);
        assert_eq!(key.0[28..], [0xf7, 0x07, 0x51, 0x1a]);
        assert_eq!(key.to_string(), first);
        for byte in 0..=255 {
            let key = PublicKey([byte; 32]);
            assert_eq!(PublicKey::read(&key.to_string()).unwrap(), key);
        }
    }

    #[test]
    fn what_is_no_key() {
        let good = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
        let cut = &good[..40];
        for bad in
            ["", "=", good.trim_end_matches('='), cut, &good.replace('/', "_"), &good.replace("Ro=", "Rp=")]
        {
            assert!(PublicKey::read(bad).is_err(), "{bad:?}");
        }
    }
}
