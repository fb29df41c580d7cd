//! A chart of accepted and throttled units over time: a column for each table, a row for each
//! client.

use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::report::Row;
use super::table::Table;

/// The tables that get a column. The charts of the others look like the first.
const SHOWN: [Table; 3] = [Table::Thousand, Table::FourThousand, Table::Changing];

const PANEL: (u32, u32) = (480, 190);
const HEAD_HEIGHT: u32 = 90;

/// Seconds of a run that are drawn.
const SECONDS: usize = 30;

/// The height of a panel, as a multiple of the capacity. It leaves room for the throttled units
/// above the capacity.
const HEADROOM: f64 = 2.5;

const FONT: &str = "sans-serif";
const INK: RGBColor = RGBColor(0x22, 0x2b, 0x36);
const FAINT: RGBColor = RGBColor(0xe3, 0xe7, 0xec);
const ACCEPTED: RGBColor = RGBColor(0x3f, 0x8f, 0x5b);
const REFUSED: RGBColor = RGBColor(0xc0, 0x39, 0x2b);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

pub(crate) fn draw(rows: &[Row], file: &Path) {
    let mut clients: Vec<&str> = rows.iter().map(|row| row.client).collect();
    clients.dedup();
    clients.truncate(rows.len() / Table::ALL.len());
    let width = PANEL.0 * SHOWN.len() as u32;
    let height = HEAD_HEIGHT + PANEL.1 * clients.len() as u32;
    let root = SVGBackend::new(file, (width, height)).into_drawing_area();
    root.fill(&WHITE).unwrap();
    let (head, panels) = root.split_vertically(HEAD_HEIGHT);
    let heading = "On a table with limits: write units per second, over 30 seconds";
    head.draw_text(heading, &style(22, INK), (20, 26)).unwrap();
    let legend = [
        (20, ACCEPTED, "accepted"),
        (130, REFUSED, "throttled, on top; the sum is what was sent, cut off at the edge"),
        (580, INK, "line: the table's capacity"),
    ];
    for (left, colour, text) in legend {
        let mark = [(left, 52), (left + 12, 64)];
        head.draw(&Rectangle::new(mark, colour.filled())).unwrap();
        head.draw_text(text, &style(14, INK), (left + 18, 58)).unwrap();
    }
    let panels = panels.split_evenly((clients.len(), SHOWN.len()));
    let places = clients.iter().flat_map(|client| SHOWN.map(|table| (*client, table)));
    for (area, (client, table)) in panels.iter().zip(places) {
        let row = rows.iter().find(|row| row.client == client && row.table == table);
        panel(area, row.unwrap());
    }
    root.present().unwrap();
}

fn panel(area: &Area<'_>, row: &Row) {
    let capacity = |second: usize| f64::from(row.table.units_in(second));
    let most = (0..SECONDS).map(capacity).fold(0.0, f64::max) * HEADROOM;
    let title = format!("{}: {}", row.client, row.table.name());
    let mut chart = ChartBuilder::on(area)
        .margin(10)
        .caption(title, style(13, INK))
        .set_label_area_size(LabelAreaPosition::Left, 50)
        .set_label_area_size(LabelAreaPosition::Bottom, 22)
        .build_cartesian_2d(0.0..SECONDS as f64, 0.0..most)
        .unwrap();
    chart
        .configure_mesh()
        .disable_x_mesh()
        .bold_line_style(FAINT)
        .light_line_style(TRANSPARENT)
        .axis_style(FAINT)
        .x_labels(4)
        .y_labels(4)
        .x_label_formatter(&|second| format!("{second:.0} s"))
        .y_label_formatter(&|units| format!("{units:.0}"))
        .label_style(style(11, INK))
        .draw()
        .unwrap();
    let bars = row.run.seconds.iter().enumerate().flat_map(|(second, seen)| {
        let (left, right) = (second as f64 + 0.08, second as f64 + 0.92);
        let (accepted, offered) = (seen.accepted as f64, (seen.accepted + seen.refused) as f64);
        let bar = |from: f64, to: f64, colour: RGBColor| {
            Rectangle::new([(left, from.min(most)), (right, to.min(most))], colour.filled())
        };
        [bar(0.0, accepted, ACCEPTED), bar(accepted, offered, REFUSED)]
    });
    chart.draw_series(bars).unwrap();
    let line = (0..SECONDS).flat_map(|second| {
        [(second as f64, capacity(second)), (second as f64 + 1.0, capacity(second))]
    });
    chart.draw_series([PathElement::new(line.collect::<Vec<_>>(), INK.stroke_width(2))]).unwrap();
}

fn style(size: u32, colour: RGBColor) -> TextStyle<'static> {
    (FONT, size).into_font().color(&colour).pos(Pos::new(HPos::Left, VPos::Center))
}
