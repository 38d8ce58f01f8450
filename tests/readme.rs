//! The README says what is there.

use node_fleet::observability::catalogue;

const BEGIN: &str = "<!-- metrics:begin -->\n";
const END: &str = "<!-- metrics:end -->";

#[test]
fn the_table_of_metrics_is_the_catalogue() {
    let readme = include_str!("../README.md");
    let (_, rest) = readme.split_once(BEGIN).expect("the README has the mark before its table of metrics");
    let (table, _) = rest.split_once(END).expect("the README has the mark after its table of metrics");
    let expected = catalogue::markdown();
    assert_eq!(table.trim(), expected.trim(), "put this between the marks of README.md:\n{expected}");
}
