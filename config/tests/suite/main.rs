//! The configuration from the outside: messages, schema, examples, hostile input.

mod examples;
mod golden;
mod hostile;
mod machine;
mod schema;
