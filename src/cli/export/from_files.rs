//! `export --from-export`: the events of files in DynamoDB JSON.

use std::ops::RangeBounds;

use chrono::{DateTime, Utc};
use dynamodb_eventstore::{EventKey, ItemSorter, ScannedItem};

use super::sink::Sink;
use super::{Exported, Failure};
use crate::item_files::{DataFile, item_lines};
use crate::output::Output;
use crate::output::event_line::Form;

impl Exported {
    /// Writes those events of the files that are within the range of times. Without a sorter they are in the order of the
    /// files.
    pub(super) async fn write_files(
        &mut self,
        files: &[DataFile],
        range: impl RangeBounds<DateTime<Utc>>,
        mut sorter: Option<ItemSorter>,
        form: Form,
        sink: &mut Sink,
        output: &Output,
    ) -> Result<(), Failure> {
        for file in files {
            let path = file.path.display();
            let mut lines =
                item_lines(&file.path).map_err(|error| format!("cannot read {path}: {error}"))?;
            let mut items = 0;
            while let Some(line) = lines.next().await {
                let line = line
                    .map_err(|error| format!("cannot read {path} after line {items}: {error}"))?;
                items += 1;
                let item = ScannedItem::from_dynamodb_json(&line.text)
                    .map_err(|error| format!("{path}:{}: {error}", line.number))?;
                match &mut sorter {
                    _ if !is_within(&item, &range) => {}
                    Some(sorter) => sorter.push(&item)?,
                    None => self.write(&item, form, sink, output)?,
                }
                if self.is_pipe_closed {
                    return Ok(());
                }
            }
            if items != file.items {
                return Err(format!(
                    "{path} has {items} items, and the manifest says {}: copy the directory again",
                    file.items
                )
                .into());
            }
        }
        if let Some(sorter) = sorter {
            for item in sorter.finish()? {
                self.write(&item?, form, sink, output)?;
                if self.is_pipe_closed {
                    break;
                }
            }
        }
        Ok(())
    }
}

/// Whether the time in the item's key is within the range. True for a key without a time, so that the item is named.
fn is_within(item: &ScannedItem, range: &impl RangeBounds<DateTime<Utc>>) -> bool {
    let key = item.key().parse::<EventKey>();
    key.map_or(true, |key| range.contains(&key.timestamp()))
}
