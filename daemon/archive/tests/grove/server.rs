//! The folder of a real server, backed up and restored: it starts, and its pages are right.
