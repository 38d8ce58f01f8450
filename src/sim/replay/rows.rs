//! Rows of a recording as text, whatever file they stand in.

use super::recording::Wrong;
use csv::StringRecord;
use std::io::Read;

/// A file that is read row by row.
pub(super) trait Rows {
    /// What a place in the file is called: `line`, or `row`.
    const PLACE: &'static str;

    /// Gives the names of the columns.
    fn header(&mut self) -> Result<Vec<String>, Wrong>;

    /// Reads the next row, and gives its place; `None` after the last one.
    fn next(&mut self, row: &mut StringRecord) -> Result<Option<u64>, Wrong>;

    /// Gives the place that was reached.
    fn reached(&self) -> u64;
}

impl<R: Read> Rows for csv::Reader<R> {
    const PLACE: &'static str = "line";

    fn header(&mut self) -> Result<Vec<String>, Wrong> {
        let header = self.headers().map_err(|error| (1, error.to_string()))?;
        Ok(header.iter().map(ToOwned::to_owned).collect())
    }

    fn next(&mut self, row: &mut StringRecord) -> Result<Option<u64>, Wrong> {
        let line = self.reached();
        let is_there = self.read_record(row).map_err(|error| (line, error.to_string()))?;
        Ok(is_there.then(|| row.position().map_or(line, csv::Position::line)))
    }

    fn reached(&self) -> u64 {
        self.position().line()
    }
}
