//! Floor four.
use crate::document::Document;
use crate::problem::Found;
use toml::de::DeTable;
pub(crate) fn check(_document: &Document, _root: &DeTable<'_>, _found: &mut Found) {}
