//! The results as a chart.

use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::report::Row;

const SIZE: (u32, u32) = (1_160, 420);
const TITLE_HEIGHT: u32 = 78;
const NAMES_WIDTH: u32 = 300;
const PANEL_WIDTH: u32 = 430;

const FONT: &str = "sans-serif";
const INK: RGBColor = RGBColor(0x22, 0x2b, 0x36);
const FAINT: RGBColor = RGBColor(0xe3, 0xe7, 0xec);
const OURS: RGBColor = RGBColor(0xc8, 0x5a, 0x1e);
const OTHERS: RGBColor = RGBColor(0x7c, 0x93, 0xad);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

pub(crate) fn draw(rows: &[Row], file: &Path) {
    let root = SVGBackend::new(file, SIZE).into_drawing_area();
    root.fill(&WHITE).unwrap();
    let (title, panels) = root.split_vertically(TITLE_HEIGHT);
    let heading = "Writing events to DynamoDB: what the client costs";
    title.draw_text(heading, &style(22, INK, HPos::Left), (20, 26)).unwrap();
    let remark = "200-byte events, one machine, one endpoint on loopback that answers as cheaply as it can; \
                  medians; both scales are logarithmic";
    title.draw_text(remark, &style(14, INK, HPos::Left), (20, 54)).unwrap();
    let (speed, cost) = panels.split_horizontally(NAMES_WIDTH + PANEL_WIDTH);
    panel(&speed, NAMES_WIDTH, "events per second (more is better)", rows, |row| {
        row.events_per_second
    });
    panel(&cost, 30, "microseconds of CPU per event (less is better)", rows, |row| {
        row.cpu_microseconds
    });
    root.present().unwrap();
}

/// Bars for one of the figures, the first row on top. Names are written only if the panel has space for
/// them on its left.
fn panel(area: &Area<'_>, left: u32, axis: &str, rows: &[Row], figure: impl Fn(&Row) -> f64) {
    let (least, most) = rows
        .iter()
        .map(&figure)
        .fold((f64::MAX, f64::MIN), |(least, most), next| (least.min(next), most.max(next)));
    // The axis begins at a whole decade below the least bar, and leaves space for the longest bar's number.
    let range = 10_f64.powf((least / 1.5).log10().floor())..most * 6.0;
    let mut chart = ChartBuilder::on(area)
        .margin_right(20)
        .margin_bottom(12)
        .set_label_area_size(LabelAreaPosition::Left, left)
        .set_label_area_size(LabelAreaPosition::Bottom, 50)
        .build_cartesian_2d(range.clone().log_scale(), rows.len() as f64..0.0)
        .unwrap();
    chart
        .configure_mesh()
        .disable_y_mesh()
        .disable_y_axis()
        .bold_line_style(FAINT)
        .light_line_style(TRANSPARENT)
        .axis_style(FAINT)
        .x_label_formatter(&|number| grouped(*number))
        .x_label_style(style(14, INK, HPos::Center))
        .x_desc(axis)
        .axis_desc_style(style(15, INK, HPos::Center))
        .draw()
        .unwrap();
    let place = |row: usize, offset: f64| row as f64 + offset;
    for (place_of, row) in rows.iter().enumerate() {
        let value = figure(row);
        let colour = if place_of + 1 == rows.len() { OURS } else { OTHERS };
        let bar = [(range.start, place(place_of, 0.2)), (value, place(place_of, 0.8))];
        let number = EmptyElement::at((value, place(place_of, 0.5)))
            + Text::new(shown(value), (7, 0), style(15, INK, HPos::Left));
        chart.draw_series([Rectangle::new(bar, colour.filled())]).unwrap();
        chart.draw_series([number]).unwrap();
        if left == NAMES_WIDTH {
            let name = EmptyElement::at((range.start, place(place_of, 0.5)))
                + Text::new(row.name, (-10, 0), style(15, INK, HPos::Right));
            chart.draw_series([name]).unwrap();
        }
    }
}

fn style(size: u32, colour: RGBColor, across: HPos) -> TextStyle<'static> {
    (FONT, size).into_font().color(&colour).pos(Pos::new(across, VPos::Center))
}

/// A number with at least three digits.
fn shown(number: f64) -> String {
    match number {
        0.0..10.0 => format!("{number:.2}"),
        10.0..100.0 => format!("{number:.1}"),
        _ => grouped(number),
    }
}

/// A number with commas between groups of three digits.
fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut grouped = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}
