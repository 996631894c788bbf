//! What went in comes out, byte by byte.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::place::{Place, noise};

#[tokio::test(flavor = "multi_thread")]
async fn an_awkward_tree_comes_back_as_it_was() {
    let mut place = Place::new().await;
    for size in [0, 1, 8191, 8192, 8193, 131_071, 131_072, 131_073, 1 << 20, (1 << 20) - 1, (1 << 20) + 1] {
        place.file(&format!("sizes/{size}"), &noise(size as u64, size));
    }
    place.file("large/zeros", &vec![0; 3 << 20]);
    place.file("large/noise", &noise(1, (20 << 20) + 17));
    place.file("weird \"ñame\"/it's\n\\ü", b"named");
    place.file("deep/a/b/c/d/e/f/g/h/i/j/k/l/m/n/o/p", b"deep");
    fs::create_dir(place.tree().join("empty")).unwrap();
    std::os::unix::fs::symlink("../sizes/1", place.tree().join("deep/link")).unwrap();
    fs::set_permissions(place.tree().join("sizes/1"), fs::Permissions::from_mode(0o640)).unwrap();
    fs::set_permissions(place.tree().join("empty"), fs::Permissions::from_mode(0o500)).unwrap();
    let first = place.backup(None).await;
    place.restores_equal(&first.backup, "restored").await;

    let second = place.backup(Some(&first.backup)).await;
    assert!(second.sums.stored * 100 < first.sums.stored, "{second:?} after {first:?}");
    assert_eq!((second.sums.new, second.sums.referenced), (0, first.sums.source));
    place.restores_equal(&second.backup, "restored again").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_thousand_small_files_are_few_objects() {
    let mut place = Place::new().await;
    for number in 0..20_000_u32 {
        place.file(&format!("base/{}/{number}", number % 40), &noise(u64::from(number), 40));
    }
    let first = place.backup(None).await;
    assert_eq!(first.sums.files, 20_000);
    assert!(first.sums.objects <= 4, "{first:?}");
    place.file("base/7/7", &noise(0, 41));
    let second = place.backup(Some(&first.backup)).await;
    assert_eq!(second.sums.new, 41);
    place.restores_equal(&second.backup, "restored").await;
}
