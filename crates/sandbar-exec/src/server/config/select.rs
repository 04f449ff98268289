//! Parts of a TOML file. Pure.

use sandbar_proto::exec::KeyPath;
use toml_edit::{Array, ArrayOfTables, DocumentMut, Item, Table, Value};

/// What a table has of `wanted`, in its own order. A way that leads through something else than a table ends there, with
/// what it leads to.
pub(super) fn select(table: &Table, wanted: &[KeyPath]) -> Table {
    let ways: Vec<&[String]> = wanted.iter().map(Vec::as_slice).collect();
    pick(table, &ways)
}

fn pick(table: &Table, ways: &[&[String]]) -> Table {
    let mut picked = bare();
    for (key, item) in table {
        let rests: Vec<&[String]> = ways
            .iter()
            .filter_map(|way| way.split_first())
            .filter(|(first, _)| *first == key)
            .map(|(_, rest)| rest)
            .collect();
        if rests.is_empty() {
            continue;
        }
        let is_whole = rests.iter().any(|rest| rest.is_empty());
        match plain(item) {
            Item::Table(table) if !is_whole => {
                let part = pick(&table, &rests);
                if !part.is_empty() {
                    picked.insert(key, Item::Table(part));
                }
            }
            Item::None => {}
            whole @ (Item::Value(_) | Item::Table(_) | Item::ArrayOfTables(_)) => {
                picked.insert(key, whole);
            }
        }
    }
    picked
}

/// A table that is written only where it has values of its own.
fn bare() -> Table {
    let mut table = Table::new();
    table.set_implicit(true);
    table
}

/// The same value without comments and in one form: tables that stand in a line become tables of their own.
fn plain(item: &Item) -> Item {
    match item {
        Item::None => Item::None,
        Item::Value(Value::InlineTable(inline)) => plain_table(&inline.clone().into_table()),
        Item::Value(value) => Item::Value(plain_value(value)),
        Item::Table(table) => plain_table(table),
        Item::ArrayOfTables(tables) => {
            let mut plain_ones = ArrayOfTables::new();
            for table in tables {
                if let Item::Table(table) = plain_table(table) {
                    plain_ones.push(table);
                }
            }
            Item::ArrayOfTables(plain_ones)
        }
    }
}

fn plain_table(table: &Table) -> Item {
    let mut made = bare();
    for (key, item) in table {
        made.insert(key, plain(item));
    }
    // One without anything says something by being there.
    made.set_implicit(!made.is_empty());
    Item::Table(made)
}

fn plain_value(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::from(text.value().as_str()),
        Value::Integer(number) => Value::from(*number.value()),
        Value::Float(number) => Value::from(*number.value()),
        Value::Boolean(truth) => Value::from(*truth.value()),
        Value::Datetime(time) => Value::from(*time.value()),
        Value::Array(values) => Value::Array(values.iter().map(plain_value).collect::<Array>()),
        Value::InlineTable(table) => {
            Value::InlineTable(table.iter().map(|(key, value)| (key, plain_value(value))).collect())
        }
    }
}

/// A table as a file of its own.
pub(super) fn to_text(table: Table) -> String {
    DocumentMut::from(table).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "\
# A comment that nobody asked for.
model = 'm' # secret
[mcp_servers.a]
command = 'c'
args = [ 'x', # why
  'y' ]
env = { TOKEN = 't' }
[mcp_servers.b]
url = 'u'
[[list]]
a = 1
[[list]]
b = 2020-01-01
[empty]
";

    fn selected(ways: &[&str]) -> String {
        let document: DocumentMut = FILE.parse().unwrap();
        let ways: Vec<KeyPath> = ways.iter().map(|way| way.split('.').map(str::to_owned).collect()).collect();
        to_text(select(&document, &ways))
    }

    #[test]
    fn only_what_was_asked_for_is_told_and_no_comment() {
        assert_eq!(selected(&["model"]), "model = \"m\"\n");
        assert_eq!(selected(&["nothing", "mcp_servers.c", "model.x.y"]), "model = \"m\"\n");
        assert_eq!(
            selected(&["mcp_servers"]),
            "[mcp_servers.a]\ncommand = \"c\"\nargs = [\"x\", \"y\"]\n\n[mcp_servers.a.env]\nTOKEN = \"t\"\n\n\
             [mcp_servers.b]\nurl = \"u\"\n"
        );
        assert_eq!(
            selected(&["mcp_servers.a.command", "mcp_servers.b"]),
            "[mcp_servers.a]\ncommand = \"c\"\n\n[mcp_servers.b]\nurl = \"u\"\n"
        );
        assert_eq!(selected(&["mcp_servers.a", "mcp_servers.a.args"]), selected(&["mcp_servers.a"]));
        assert_eq!(selected(&["mcp_servers.nothing"]), "");
    }

    #[test]
    fn every_kind_of_value_keeps_its_meaning() {
        assert_eq!(selected(&["list"]), "[[list]]\na = 1\n\n[[list]]\nb = 2020-01-01\n");
        assert_eq!(selected(&["empty"]), "[empty]\n");
        let document: DocumentMut = "a = { b = [1, {c = 2.5}], d = true }".parse().unwrap();
        assert_eq!(
            to_text(select(&document, &[vec!["a".to_owned()]])),
            "[a]\nb = [1, { c = 2.5 }]\nd = true\n"
        );
    }
}
