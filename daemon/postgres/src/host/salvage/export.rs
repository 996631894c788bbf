//! Exporting the rows of given transactions from the server that still runs.
//!
//! **Invariant:** a file name is made of letters, digits, `_` and `-` of the table's name; the rest is escaped.
//! **Invariant:** a table that cannot be exported is named, and the others are exported.

use std::collections::BTreeMap;
use std::io::{BufReader, Read};
use std::path::Path;

use lifeboat_core::Fault;
use serde::{Deserialize, Serialize};

use crate::host::config::Server;
use crate::host::salvage::parted::Parted;
use crate::host::{durable, sql};

/// Catalogs that change by themselves.
const RESTLESS: [&str; 2] = ["pg_statistic", "pg_statistic_ext_data"];

/// Bytes of a file name before its number and ending.
const LONGEST_NAME: usize = 200;

/// A table, and what is in its file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Table {
    /// The database.
    pub(super) database: String,
    /// The schema.
    pub(super) schema: String,
    /// The table.
    pub(super) table: String,
    /// Its file in the folder; none when there was no row to export, or it could not be.
    pub(super) file: Option<String>,
    /// How many rows are in it.
    pub(super) rows: u64,
    /// How many rows were deleted from it.
    pub(super) deleted: u64,
}

impl Table {
    /// Whether it is lifeboat's own.
    pub(super) fn is_heartbeat(&self) -> bool {
        self.schema == "lifeboat" && self.table == "heartbeat"
    }
}

/// A relation as its database knows it.
#[derive(Deserialize)]
struct Known {
    file: u32,
    schema: String,
    table: String,
    kind: String,
}

/// Exports the rows of the transactions, database by database.
pub(super) async fn tables(
    server: &Server,
    parted: &Parted,
    folder: &Path,
    unread: &mut Vec<String>,
) -> Result<Vec<Table>, Fault> {
    let query = "SELECT json_build_array(oid::bigint, datname) FROM pg_database";
    let databases: BTreeMap<u32, String> =
        sql::rows::<(u32, String)>(server, "postgres", query).await?.into_iter().collect();
    let mut touched: BTreeMap<u32, BTreeMap<u32, (u64, u64)>> = BTreeMap::new();
    for (relation, count) in &parted.touched {
        let deleted = parted.deleted.get(relation).copied().unwrap_or_default();
        touched.entry(relation.database).or_default().insert(relation.file, (*count, deleted));
    }
    if touched.remove(&0).is_some() {
        unread.push("roles, databases or other things that all databases share were changed".to_owned());
    }
    let ids: Vec<String> = parted.committed.iter().map(u32::to_string).collect();
    let ids = format!("'{{{}}}'::xid[]", ids.join(","));
    let mut tables = Vec::new();
    for (oid, files) in touched {
        let Some(database) = databases.get(&oid) else {
            unread.push(format!("a database (oid {oid}) with {} changed tables is gone", files.len()));
            continue;
        };
        match relations(server, database, &files).await {
            Ok(known) => {
                let place = Place { server, database, folder, ids: &ids };
                place.export(known, files, &mut tables, unread).await?;
            }
            Err(fault) => unread.push(format!("the database {database} refuses: {}", fault.detail)),
        }
    }
    Ok(tables)
}

/// What the files are now.
async fn relations(
    server: &Server,
    database: &str,
    files: &BTreeMap<u32, (u64, u64)>,
) -> Result<Vec<Known>, Fault> {
    let numbers: Vec<String> = files.keys().map(u32::to_string).collect();
    let query = format!(
        "SELECT json_build_object('file', pg_relation_filenode(c.oid)::bigint, 'schema', n.nspname,
           'table', c.relname, 'kind', c.relkind)
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE pg_relation_filenode(c.oid) = ANY ('{{{}}}'::oid[])",
        numbers.join(",")
    );
    sql::rows(server, database, &query).await
}

/// One database to export from.
struct Place<'a> {
    server: &'a Server,
    database: &'a str,
    folder: &'a Path,
    ids: &'a str,
}

impl Place<'_> {
    async fn export(
        &self,
        known: Vec<Known>,
        mut files: BTreeMap<u32, (u64, u64)>,
        tables: &mut Vec<Table>,
        unread: &mut Vec<String>,
    ) -> Result<(), Fault> {
        let mut catalogs = 0;
        for relation in known {
            let Some((touched, deleted)) = files.remove(&relation.file) else { continue };
            let Known { schema, table, kind, .. } = relation;
            if schema == "pg_catalog" || schema == "information_schema" {
                catalogs += if RESTLESS.contains(&table.as_str()) { 0 } else { touched };
                continue;
            }
            if kind != "r" {
                // A toast table's values come with the rows; a materialized view can be made anew.
                continue;
            }
            let mut made =
                Table { database: self.database.to_owned(), schema, table, file: None, rows: 0, deleted };
            if deleted > 0 {
                let Table { database, schema, table, .. } = &made;
                unread.push(format!("{deleted} rows were deleted from {database}.{schema}.{table}"));
            }
            if let Err(fault) = self.copy(&mut made, relation.file).await {
                let Table { database, schema, table, .. } = &made;
                unread.push(format!("{database}.{schema}.{table} could not be exported: {}", fault.detail));
            }
            tables.push(made);
        }
        if catalogs > 0 {
            unread.push(format!(
                "{catalogs} rows of the catalogs of {} were changed: tables, columns or other definitions",
                self.database
            ));
        }
        for (file, (touched, _)) in files {
            unread.push(format!(
                "{touched} row changes are in a table of {} that was dropped, truncated or rewritten since (file {file})",
                self.database
            ));
        }
        Ok(())
    }

    /// Copies the rows into a file of their own.
    async fn copy(&self, table: &mut Table, file: u32) -> Result<(), Fault> {
        let name = [&table.database, &table.schema, &table.table].map(|part| escaped(part)).join(".");
        // A file name has at most 255 bytes; the number keeps long ones apart.
        let name = if name.len() > LONGEST_NAME { format!("{}-{file}", &name[..LONGEST_NAME]) } else { name };
        let name = format!("{name}.csv");
        let path = self.folder.join(&name);
        let identifier = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
        let statement = format!(
            "COPY (SELECT * FROM ONLY {}.{} WHERE xmin = ANY ({})) TO STDOUT WITH (FORMAT csv, HEADER true);\n",
            identifier(&table.schema),
            identifier(&table.table),
            self.ids
        );
        sql::into_file(self.server, self.database, statement, &path).await?;
        table.rows = count(&path)?;
        if table.rows == 0 {
            return durable::remove(&path);
        }
        table.file = Some(name);
        Ok(())
    }
}

/// Rows of a CSV file without its header: line ends that are not within quotes.
fn count(path: &Path) -> Result<u64, Fault> {
    let file = std::fs::File::open(path).map_err(|error| durable::fault("open", path, &error))?;
    let mut reader = BufReader::new(file);
    let (mut lines, mut quoted, mut bytes) = (0_u64, false, [0; 1 << 14]);
    loop {
        let read = reader.read(&mut bytes).map_err(|error| durable::fault("read", path, &error))?;
        if read == 0 {
            return Ok(lines.saturating_sub(1));
        }
        for byte in &bytes[..read] {
            quoted ^= *byte == b'"';
            lines += u64::from(*byte == b'\n' && !quoted);
        }
    }
}

/// A name as a part of a file name.
fn escaped(name: &str) -> String {
    let mut text = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-' {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_counted_past_quoted_line_ends() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.csv");
        std::fs::write(&path, "id,note\n1,\"two\nlines, \"\"quoted\"\"\"\n2,x\n").unwrap();
        assert_eq!(count(&path).unwrap(), 2);
    }

    #[test]
    fn names_cannot_leave_the_folder() {
        assert_eq!(escaped("../a b"), "%2E%2E%2Fa%20b");
        assert_eq!(escaped("orders_2-x"), "orders_2-x");
    }
}
