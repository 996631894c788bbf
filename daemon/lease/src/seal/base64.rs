//! Base64 with padding (RFC 4648, section 4), for keys and seals.
//!
//! **Invariant:** each sequence of bytes has one text that is read: what is not written like that is refused.

const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// The text of these bytes.
pub(crate) fn text(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let byte = |at: usize| u32::from(three.get(at).copied().unwrap_or_default());
        let bits = (byte(0) << 16) | (byte(1) << 8) | byte(2);
        for at in 0..4 {
            let letter = (bits >> (18 - 6 * at)) & 63;
            text.push(if at > three.len() { '=' } else { char::from(LETTERS[letter as usize]) });
        }
    }
    text
}

/// The bytes of a text; none when it is anything else.
pub(crate) fn bytes(text: &[u8]) -> Option<Vec<u8>> {
    let padding = text.iter().rev().take(2).take_while(|letter| **letter == b'=').count();
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    for four in text.chunks(4) {
        let mut bits = 0_u32;
        for letter in four {
            let value = LETTERS.iter().position(|known| known == letter);
            bits = (bits << 6) | u32::try_from(value.or((*letter == b'=').then_some(0))?).ok()?;
        }
        bytes.extend(bits.to_be_bytes().into_iter().skip(1));
    }
    bytes.truncate(bytes.len().checked_sub(padding)?);
    // What is no whole group, has letters after a padding, or bits that nothing stands for, is written otherwise.
    (self::text(&bytes).as_bytes() == text).then_some(bytes)
}

/// A word that nobody has said before: 128 random bits. None when the system gives none.
pub(crate) fn word() -> Option<String> {
    let mut random = [0_u8; 16];
    aws_lc_rs::rand::fill(&mut random).ok()?;
    Some(random.iter().map(|byte| format!("{byte:02x}")).collect())
}
