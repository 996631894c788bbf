//! The beginning of a segment that is not whole, put together from its pieces.
//!
//! **Invariant:** a piece is used only when what is before it is what was before it when it was made.

use futures::{StreamExt as _, TryStreamExt as _};
use lifeboat_core::SystemIdentifier;
use lifeboat_engine::ports::{ObjectName, StoreError};

use super::names::{Entry, SegmentName, SegmentSize, entry, folder, piece_object};
use super::objects::WalLabel;
use crate::archive::Archive;
use crate::object::Kind;
use crate::trouble::Trouble;

/// So many pieces are fetched at once: a distant store answers slowly, but many at a time.
const AT_ONCE: usize = 8;

/// What there is of a segment.
#[derive(Debug, Default)]
pub(crate) struct Prefix {
    /// From the segment's first byte on.
    pub(crate) bytes: Vec<u8>,
    /// What the last piece says of itself.
    pub(crate) label: Option<WalLabel>,
    /// The segment is there whole as well, as an object.
    pub(crate) whole: bool,
}

/// Which pieces to take, so that they join from the beginning on: always the one that reaches furthest.
pub(crate) fn chain(pieces: &[(u32, u32)]) -> Vec<(u32, u32)> {
    let (mut chosen, mut reached) = (Vec::new(), 0);
    loop {
        let next = pieces.iter().filter(|(from, to)| *from <= reached && *to > reached).max_by_key(|p| p.1);
        let Some(next) = next else { return chosen };
        chosen.push(*next);
        reached = next.1;
    }
}

/// The pieces of a segment by their names, and whether the segment itself is there.
pub(crate) async fn pieces(
    archive: &Archive,
    system: SystemIdentifier,
    segment: SegmentName,
) -> Result<(Vec<(u32, u32)>, bool), StoreError> {
    let under = format!("{}{segment}", folder(system, segment.timeline()));
    let (mut found, mut whole, mut after) = (Vec::new(), false, None::<ObjectName>);
    loop {
        let page = archive.store().list(&under, after.as_ref()).await?;
        let Some(last) = page.last() else { return Ok((found, whole)) };
        after = Some(last.name.clone());
        for listed in &page {
            match entry(&listed.name) {
                Some(Entry::Segment(named)) if named == segment => whole = true,
                Some(Entry::Piece { segment: named, from, to }) if named == segment => found.push((from, to)),
                _ => {}
            }
        }
    }
}

/// Puts together what there is.
pub(crate) async fn assemble(
    archive: &Archive,
    system: SystemIdentifier,
    segment: SegmentName,
    size: SegmentSize,
) -> Result<Prefix, Trouble> {
    let (found, whole) = pieces(archive, system, segment).await?;
    let chosen = chain(&found);
    let reached = chosen.last().map_or(0, |last| last.1);
    let mut prefix = Prefix { whole, ..Prefix::default() };
    if reached as usize > size.length() {
        return Err(Trouble::Refused(format!("{segment} has pieces that are longer than {}", size.bytes())));
    }
    let mut hasher = blake3::Hasher::new();
    let mut opened = futures::stream::iter(chosen.into_iter().map(|(from, to)| async move {
        let name = piece_object(system, segment, &(from as usize..to as usize))?;
        let (label, plain) = archive.read::<WalLabel>(&name, Kind::Piece, (to - from) as usize).await?;
        if plain.len() != (to - from) as usize {
            return Err(Trouble::damaged(&name, "it does not hold what its name says"));
        }
        Ok((name, from as usize, label, plain))
    }))
    .buffered(AT_ONCE);
    while let Some((name, from, label, plain)) = opened.try_next().await? {
        let have = prefix.bytes.len();
        let known = have - from;
        let before = if known == 0 { hasher.finalize() } else { blake3::hash(&prefix.bytes[..from]) };
        let fits = label.before.as_deref().is_none_or(|said| said == before.to_hex().as_str());
        if !fits || prefix.bytes[from..] != plain[..known] {
            let what = format!("made after other bytes than those before offset {from}");
            return Err(Trouble::Conflict { name, what });
        }
        hasher.update(&plain[known..]);
        prefix.bytes.extend_from_slice(&plain[known..]);
        prefix.label = Some(label);
    }
    drop(opened);
    Ok(prefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_chosen_so_that_they_join() {
        assert_eq!(chain(&[]), []);
        assert_eq!(chain(&[(0, 5), (0, 9), (5, 12), (9, 10), (12, 20)]), [(0, 9), (5, 12), (12, 20)]);
        assert_eq!(chain(&[(0, 5), (6, 9)]), [(0, 5)]);
        assert_eq!(chain(&[(1, 5)]), []);
    }
}
