//! What is wrong with an archive is named, and nothing is restored from what is wrong.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use lifeboat_archive::keys::KeyFile;
use lifeboat_archive::verify::{Fault, Sample, Scope};
use lifeboat_archive::{Archive, BackupId, Manifest, catalog, verify};
use lifeboat_engine::ports::ObjectName;

use crate::place::{Place, SYSTEM, noise, pages};

/// Two backups; the second one is made of parts of the first.
async fn two(place: &mut Place) -> [BackupId; 2] {
    place.control();
    place.file("base/1", &pages(1, 2000));
    place.file("base/2", &noise(2, 20 << 20));
    let first = place.backup(None).await.backup;
    place.file("base/3", &noise(3, 100_000));
    let second = place.backup(Some(&first)).await.backup;
    [first, second]
}

/// Which objects each backup needs.
async fn needs(place: &Place, backups: &[BackupId]) -> BTreeMap<ObjectName, Vec<BackupId>> {
    let mut needs = BTreeMap::<_, Vec<BackupId>>::new();
    for backup in backups {
        let manifest = Manifest::read(&place.archive, SYSTEM, backup).await.unwrap();
        for object in manifest.objects().unwrap() {
            needs.entry(object).or_default().push(backup.clone());
        }
    }
    needs
}

type Spoil = fn(Bytes, usize) -> Option<Bytes>;

const SPOILT: [(&str, Fault, Spoil); 6] = [
    ("a byte in the middle", Fault::Damaged, |object, _| Some(flipped(&object, object.len() / 2))),
    ("a byte of the last ones", Fault::Damaged, |object, _| Some(flipped(&object, object.len() - 3))),
    ("a byte of the label", Fault::Damaged, |object, _| Some(flipped(&object, 70))),
    ("cut", Fault::Damaged, |object, round| Some(object.slice(..object.len() * round / 100))),
    ("empty", Fault::Damaged, |_, _| Some(Bytes::new())),
    ("gone", Fault::Missing, |_, _| None),
];

fn flipped(object: &Bytes, at: usize) -> Bytes {
    let mut object = object.to_vec();
    object[at] ^= 4;
    object.into()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_object_that_is_spoilt_is_named_with_what_it_spoils() {
    let mut place = Place::new().await;
    let backups = two(&mut place).await;
    let needs = needs(&place, &backups).await;
    let held: Vec<ObjectName> = place.store.objects().into_keys().collect();
    let ours = held.iter().filter(|name| name.as_str().starts_with("backups/")).count();
    assert_eq!(needs.len(), ours, "every object of a backup is needed by one");
    for (round, (object, by)) in needs.iter().enumerate() {
        let whole = place.store.objects()[object].clone();
        for (what, fault, spoil) in SPOILT {
            place.store.damage(object, |object| spoil(object.unwrap(), round * 97 % 100));
            let verified = place.verified().await;
            let [finding] = verified.findings.as_slice() else {
                // Without a manifest there is no backup: it is listed as unfinished, and what it needs is garbage.
                let manifest = object.as_str().ends_with("manifest") && fault == Fault::Missing;
                assert!(manifest && verified.findings.is_empty(), "{object}, {what}: {verified:?}");
                place.store.damage(object, |_| Some(whole.clone()));
                continue;
            };
            assert_eq!((&finding.object, finding.fault), (&object.to_string(), fault), "{what}: {finding:?}");
            assert_eq!(&finding.backups, by, "{what}");
            if object.as_str().contains("/prints-") {
                // Only the next backup and a restore over something want fingerprints: this one does without.
                place.restores_equal(by.last().unwrap(), &format!("{round} {what}")).await;
                place.store.damage(object, |_| Some(whole.clone()));
                continue;
            }
            let refused = place.restore(&by[0], &format!("{round} {what}"), false).await.unwrap_err();
            assert!(refused.to_string().contains(object.as_str()), "{object}, {what}: {refused}");
            let control = place.scratch.path().join(format!("{round} {what}")).join("global/pg_control");
            assert!(!control.exists(), "{object}, {what}");
            place.store.damage(object, |_| Some(whole.clone()));
        }
    }
    assert_eq!(place.verified().await.findings, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_in_the_place_of_another_is_found() {
    let mut place = Place::new().await;
    let backups = two(&mut place).await;
    let needs = needs(&place, &backups).await;
    let objects = place.store.objects();
    for (object, by) in &needs {
        for other in needs.keys().filter(|other| *other != object) {
            place.store.damage(object, |_| Some(objects[other].clone()));
            let verified = place.verified().await;
            let [finding] = verified.findings.as_slice() else { panic!("{other} as {object}: {verified:?}") };
            assert_eq!((&finding.object, finding.fault), (&object.to_string(), Fault::Damaged));
            assert_eq!(&finding.backups, by);
        }
        place.store.damage(object, |_| Some(objects[object].clone()));
    }
    // The manifest of the older backup, put back as that of the newer one: it is listed as damaged, not as the newer one.
    let [older, newer] = backups
        .each_ref()
        .map(|backup| needs.keys().find(|name| name.as_str().ends_with(&format!("{backup}/manifest"))));
    place.store.damage(newer.unwrap(), |_| Some(objects[older.unwrap()].clone()));
    let listed = catalog(&place.archive, SYSTEM).await.unwrap();
    assert_eq!(listed.len(), 2);
    assert!(listed[0].label().is_some() && listed[1].label().is_none(), "{listed:?}");
    assert!(place.restore(&backups[1], "restored", false).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn another_key_opens_nothing_and_is_named() {
    let mut place = Place::new().await;
    let [first, _] = two(&mut place).await;
    let other = KeyFile::make(&place.scratch.path().join("other")).unwrap();
    let Err(refused) = Archive::open(Arc::new(place.store.clone()), &other).await else {
        panic!("it opened")
    };
    assert!(refused.to_string().contains("key file"), "{refused}");

    let mut foreign = Place::new().await;
    foreign.file("base/1", b"theirs");
    foreign.backup(None).await;
    let theirs = foreign.store.objects().into_iter().find(|(name, _)| name.as_str().contains("data-00001"));
    let ours: ObjectName = format!("backups/{:016x}/{first}/data-00001", SYSTEM.get()).parse().unwrap();
    place.store.damage(&ours, |_| Some(theirs.unwrap().1));
    let verified = place.verified().await;
    assert_eq!(verified.findings.len(), 1);
    assert_eq!((verified.findings[0].fault, verified.findings[0].backups.len()), (Fault::NoKey, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn samples_read_all_of_it_in_the_end() {
    let mut place = Place::new().await;
    let [first, _] = two(&mut place).await;
    let object: ObjectName = format!("backups/{:016x}/{first}/data-00002", SYSTEM.get()).parse().unwrap();
    place.store.damage(&object, |object| object.map(|object| flipped(&object, object.len() / 2)));
    let mut found = 0;
    for seed in 0..60 {
        let sample = Some(Sample { millionths: 200_000, seed });
        let scope = Scope { sample, ..Scope::default() };
        let verified = verify(&place.archive, SYSTEM, &scope, Arc::new(|_, _| {})).await.unwrap();
        assert!(verified.read < verified.objects);
        found += verified.findings.len();
    }
    assert!((1..60).contains(&found), "{found}");
    place.store.damage(&object, |_| None);
    let scope = Scope { sample: Some(Sample { millionths: 0, seed: 0 }), ..Scope::default() };
    let verified = verify(&place.archive, SYSTEM, &scope, Arc::new(|_, _| {})).await.unwrap();
    assert_eq!((verified.read, verified.findings.len()), (0, 1), "what is gone is found without reading");
}
