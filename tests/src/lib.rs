//! Tests of the whole: repo rules, command line, real components.
