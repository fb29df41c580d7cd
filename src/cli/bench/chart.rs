//! The charts of a report, as SVG text.

use std::error::Error;

use plotters::coord::Shift;
use plotters::coord::ranged1d::ValueFormatter;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;

use super::recorder::{Latencies, Sample};
use super::summary::milliseconds;

const SIZE: (u32, u32) = (920, 260);
const FONT: &str = "sans-serif";
const INK: RGBColor = RGBColor(0x22, 0x2b, 0x36);
const FAINT: RGBColor = RGBColor(0xe3, 0xe7, 0xec);
pub(super) const STORED: RGBColor = RGBColor(0x3f, 0x8f, 0x5b);
pub(super) const OFFERED: RGBColor = RGBColor(0x22, 0x2b, 0x36);
pub(super) const REFUSED: RGBColor = RGBColor(0xc0, 0x39, 0x2b);
pub(super) const MEDIAN: RGBColor = RGBColor(0x2b, 0x6c, 0xb0);
pub(super) const TAIL: RGBColor = RGBColor(0xb7, 0x79, 0x1f);

/// The end of the percentile curve, in nines: 4 is 99.99 %.
const MAX_NINES: f64 = 4.0;

/// Points of the percentile curve per nine.
const POINTS_PER_NINE: u32 = 20;

type Drawn = Result<String, Box<dyn Error>>;
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Events per second: stored as an area, put as a line.
pub(super) fn throughput(samples: &[Sample]) -> Drawn {
    let rate = |sample: &Sample, events: u64| events as f64 / sample.seconds.max(0.001);
    let most = maximum(samples.iter().map(|sample| rate(sample, sample.put.max(sample.stored))));
    draw(|area| {
        let mut chart = chart(area).build_cartesian_2d(times(samples), 0.0..most)?;
        mesh(&mut chart, &|events| thousands(*events))?;
        let stored = steps(samples, |sample| rate(sample, sample.stored));
        chart.draw_series(AreaSeries::new(stored, 0.0, STORED.mix(0.55)))?;
        let put = steps(samples, |sample| rate(sample, sample.put));
        chart.draw_series(LineSeries::new(put, OFFERED.stroke_width(2)))?;
        Ok(())
    })
}

/// Write units per second: what the table accepted, and on top what it throttled.
pub(super) fn write_units(samples: &[Sample], units_per_event: u32) -> Drawn {
    let units = |sample: &Sample| {
        let seconds = sample.seconds.max(0.001);
        let taken = (sample.stored * u64::from(units_per_event)) as f64 / seconds;
        (taken, taken + sample.throttled_units as f64 / seconds)
    };
    let most = maximum(samples.iter().map(|sample| units(sample).1));
    draw(|area| {
        let mut chart = chart(area).build_cartesian_2d(times(samples), 0.0..most)?;
        mesh(&mut chart, &|units| thousands(*units))?;
        chart.draw_series(samples.iter().flat_map(|sample| {
            let (taken, offered) = units(sample);
            let (left, right) = (sample.at - sample.seconds, sample.at);
            [
                Rectangle::new([(left, 0.0), (right, taken)], STORED.mix(0.8).filled()),
                Rectangle::new([(left, taken), (right, offered)], REFUSED.filled()),
            ]
        }))?;
        Ok(())
    })
}

/// The latency over time: median, 99th percentile and maximum, on a logarithmic scale.
pub(super) fn latency_over_time(samples: &[Sample]) -> Drawn {
    let all = || samples.iter().filter_map(|sample| sample.latency).flatten();
    let (least, most) = (all().fold(f64::MAX, f64::min), maximum(all()));
    draw(|area| {
        let scale = (least.clamp(0.001, most / 2.0)..most).log_scale();
        let mut chart = chart(area).build_cartesian_2d(times(samples), scale)?;
        mesh(&mut chart, &|latency| milliseconds(*latency))?;
        for (index, colour) in [REFUSED, TAIL, MEDIAN].into_iter().enumerate() {
            let line = samples.iter().filter_map(|sample| {
                let [median, tail, max] = sample.latency?;
                let value = [max, tail, median].get(index).copied()?;
                Some((sample.at, value.max(0.001)))
            });
            chart.draw_series(LineSeries::new(line, colour.stroke_width(2)))?;
        }
        Ok(())
    })
}

/// The latency that a share of the events did not exceed.
pub(super) fn latency_curve(latencies: &Latencies) -> Drawn {
    let value = |nines: f64| {
        let quantile = 1.0 - 10f64.powf(-nines);
        latencies.value_at_quantile(quantile) as f64 / 1_000.0
    };
    let points = (0..=MAX_NINES as u32 * POINTS_PER_NINE)
        .map(|point| f64::from(point) / f64::from(POINTS_PER_NINE))
        .map(|nines| (nines, value(nines).max(0.001)));
    let points: Vec<(f64, f64)> = points.collect();
    let (least, most) = (value(0.0), maximum(points.iter().map(|(_, latency)| *latency)));
    draw(|area| {
        let scale = (least.clamp(0.001, most / 2.0)..most).log_scale();
        let mut chart = chart(area).build_cartesian_2d(0.0..MAX_NINES, scale)?;
        chart
            .configure_mesh()
            .bold_line_style(FAINT)
            .light_line_style(TRANSPARENT)
            .axis_style(FAINT)
            .x_labels(5)
            .y_labels(6)
            .x_label_formatter(&|nines| percent(*nines))
            .y_label_formatter(&|latency| milliseconds(*latency))
            .label_style((FONT, 12).into_font().color(&INK))
            .draw()?;
        chart.draw_series(LineSeries::new(points, MEDIAN.stroke_width(3)))?;
        Ok(())
    })
}

fn draw(fill: impl FnOnce(&Area<'_>) -> Result<(), Box<dyn Error>>) -> Drawn {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        fill(&area)?;
        area.present().map_err(|error| error.to_string())?;
    }
    Ok(svg)
}

fn chart<'a, 'b>(area: &'a Area<'b>) -> ChartBuilder<'a, 'b, SVGBackend<'b>> {
    let mut chart = ChartBuilder::on(area);
    chart
        .margin(8)
        .margin_right(24)
        .set_label_area_size(LabelAreaPosition::Left, 70)
        .set_label_area_size(LabelAreaPosition::Bottom, 26);
    chart
}

fn mesh<'a, Y>(
    chart: &mut ChartContext<'a, SVGBackend<'a>, Cartesian2d<RangedCoordf64, Y>>,
    label: &dyn Fn(&f64) -> String,
) -> Result<(), Box<dyn Error>>
where
    Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    chart
        .configure_mesh()
        .disable_x_mesh()
        .bold_line_style(FAINT)
        .light_line_style(TRANSPARENT)
        .axis_style(FAINT)
        .x_labels(8)
        .y_labels(5)
        .x_label_formatter(&|seconds| format!("{seconds} s"))
        .y_label_formatter(label)
        .label_style((FONT, 12).into_font().color(&INK))
        .draw()
        .map_err(|error| error.to_string())?;
    Ok(())
}

/// The time axis.
fn times(samples: &[Sample]) -> std::ops::Range<f64> {
    0.0..maximum(samples.iter().map(|sample| sample.at))
}

/// The corners of a step line.
fn steps(samples: &[Sample], value: impl Fn(&Sample) -> f64) -> Vec<(f64, f64)> {
    let corners = |sample: &Sample| {
        let value = value(sample);
        [(sample.at - sample.seconds, value), (sample.at, value)]
    };
    samples.iter().flat_map(corners).collect()
}

/// The largest value, with room above it; never zero, as an axis needs an extent.
fn maximum(values: impl Iterator<Item = f64>) -> f64 {
    values.fold(0.001, f64::max) * 1.05
}

/// "950", "12k", "1.5M".
fn thousands(number: f64) -> String {
    match number {
        small if small < 1_000.0 => format!("{small:.0}"),
        medium if medium < 1_000_000.0 => format!("{}k", medium / 1_000.0),
        large => format!("{}M", large / 1_000_000.0),
    }
}

/// The share of events that `nines` stands for: 1 is "90 %", 2 is "99 %".
fn percent(nines: f64) -> String {
    let percent = 100.0 - 100.0 * 10f64.powf(-nines);
    let digits = (nines - 2.0).max(0.0) as usize;
    format!("{percent:.digits$} %")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_short() {
        for (number, label) in [(950.0, "950"), (12_000.0, "12k"), (1_500_000.0, "1.5M")] {
            assert_eq!(thousands(number), label);
        }
        for (nines, label) in
            [(0.0, "0 %"), (1.0, "90 %"), (2.0, "99 %"), (3.0, "99.9 %"), (4.0, "99.99 %")]
        {
            assert_eq!(percent(nines), label);
        }
    }
}
