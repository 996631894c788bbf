//! The configuration from the outside: messages, schema, examples, hostile input.

#[cfg(test)]
mod examples;
#[cfg(test)]
mod golden;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod machine;
#[cfg(test)]
mod schema;
