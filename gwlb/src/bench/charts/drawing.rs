//! The drawing itself: plain, with every value printed, on white so that it reads everywhere.

use std::io;

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::super::error::BenchError;
use super::super::report::figure;
use super::{Chart, Sheet};

/// Pixels.
const WIDTH: u32 = 860;
/// What stands above and below the bars: title, note, axis.
const FRAME: u32 = 130;
const BAR: u32 = 26;
/// The names of set-ups, left of their bars.
const NAMES: u32 = 280;
const LINES_HEIGHT: u32 = 460;
const FONT: &str = "sans-serif";
/// Sizes of letters, as plotters counts them: a quarter more than SVG does.
const TITLE: u32 = 24;
const LARGE: u32 = 18;
const SMALL: u32 = 16;
/// Colours that people who see few colours can tell apart (Okabe and Ito).
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(230, 159, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(213, 94, 0),
];

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

/// The sheet as the text of an SVG file.
pub(super) fn svg(sheet: &Sheet<'_>) -> Result<String, BenchError> {
    let height = match &sheet.chart {
        Chart::Bars { series, groups } => FRAME + rows(series.len(), groups.len()) as u32 * BAR,
        Chart::Lines { .. } => LINES_HEIGHT,
    };
    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, (WIDTH, height)).into_drawing_area();
        let drawn = paper(&area, sheet).and_then(|area| match &sheet.chart {
            Chart::Bars { series, groups } => bars(&area, series, groups, sheet.unit),
            Chart::Lines { lines: all } => lines(&area, all, sheet.unit),
        });
        drawn
            .and_then(|()| area.present().map_err(Into::into))
            .map_err(|error| BenchError::io("draw a chart")(io::Error::other(error.to_string())))?;
    }
    Ok(text)
}

type Drawn<T = ()> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Title and note; what is left is for the chart.
fn paper<'a>(area: &Area<'a>, sheet: &Sheet<'_>) -> Drawn<Area<'a>> {
    area.fill(&WHITE)?;
    let title = format!("{}: {}", sheet.metric, sheet.case);
    area.draw(&Text::new(title, (16, 12), (FONT, TITLE).into_font()))?;
    area.draw(&Text::new(
        sheet.note.clone(),
        (16, 38),
        (FONT, SMALL).into_font().color(&BLACK.mix(0.6)),
    ))?;
    Ok(area.margin(60, 8, 16, 24))
}

/// How many rows of the height of a bar there are: one between groups, if there are several series.
fn rows(series: usize, groups: usize) -> usize {
    groups * if series > 1 { series + 1 } else { 1 } + usize::from(series > 1)
}

/// Bars that lie, with their set-up's name on the left and their value on the right.
fn bars(
    area: &Area<'_>,
    series: &[&str],
    groups: &[(&str, Vec<Option<f64>>)],
    unit: &str,
) -> Drawn {
    let values = || groups.iter().flat_map(|(_, values)| values.iter().flatten().copied());
    let most = values().fold(0.0, f64::max).max(f64::MIN_POSITIVE);
    let all = rows(series.len(), groups.len()) as f64;
    let mut chart = ChartBuilder::on(area)
        .set_label_area_size(LabelAreaPosition::Left, NAMES)
        .set_label_area_size(LabelAreaPosition::Bottom, 44)
        // The first group is on top.
        .build_cartesian_2d(0.0..most * 1.12, all..0.0)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .disable_y_axis()
        .y_labels(0)
        .light_line_style(TRANSPARENT)
        .x_desc(unit)
        .x_label_formatter(&|value| short(*value))
        .label_style((FONT, SMALL))
        .draw()?;
    let name_style = |size: u32| {
        let style = TextStyle::from((FONT, size).into_font());
        style.pos(Pos::new(HPos::Right, VPos::Center))
    };
    let value_style =
        TextStyle::from((FONT, SMALL).into_font()).pos(Pos::new(HPos::Left, VPos::Center));
    let step = if series.len() > 1 { series.len() + 1 } else { 1 };
    for (number, (name, values)) in groups.iter().enumerate() {
        let top = (number * step + usize::from(series.len() > 1)) as f64;
        let middle = top + values.len() as f64 / 2.0;
        let (x, y) = chart.backend_coord(&(0.0, middle));
        let left = if series.len() > 1 { 56 } else { 8 };
        write(area, name, (x - left, y), &name_style(LARGE))?;
        for (number, (value, series)) in values.iter().zip(series).enumerate() {
            let top = top + number as f64;
            let (x, y) = chart.backend_coord(&(0.0, top + 0.5));
            write(area, series, (x - 8, y), &name_style(SMALL))?;
            let Some(value) = *value else { continue };
            let colour = COLOURS[number % COLOURS.len()];
            let corners = [(0.0, top + 0.12), (value, top + 0.88)];
            chart.draw_series([Rectangle::new(corners, colour.filled())])?;
            let (x, y) = chart.backend_coord(&(value, top + 0.5));
            write(area, &figure(value), (x + 5, y), &value_style)?;
        }
    }
    Ok(())
}

/// Lines over a number of flows that grows by factors.
fn lines(area: &Area<'_>, lines: &[(&str, Vec<(f64, f64)>)], unit: &str) -> Drawn {
    let points = || lines.iter().flat_map(|(_, points)| points.iter().copied());
    let most = points().map(|(_, y)| y).fold(0.0, f64::max).max(f64::MIN_POSITIVE);
    let first = points().map(|(x, _)| x).fold(f64::INFINITY, f64::min).clamp(1.0, 1e12);
    let last = points().map(|(x, _)| x).fold(first * 2.0, f64::max);
    let mut chart = ChartBuilder::on(area)
        .set_label_area_size(LabelAreaPosition::Left, 64)
        .set_label_area_size(LabelAreaPosition::Bottom, 48)
        .build_cartesian_2d((first * 0.7..last * 1.6).log_scale(), 0.0..most * 1.15)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_desc("flows")
        .y_desc(unit)
        .x_label_formatter(&|value| short(*value))
        .y_label_formatter(&|value| short(*value))
        .label_style((FONT, SMALL))
        .draw()?;
    for (number, (name, points)) in lines.iter().enumerate() {
        let colour = COLOURS[number % COLOURS.len()];
        chart
            .draw_series(
                LineSeries::new(points.iter().copied(), colour.stroke_width(2)).point_size(4),
            )?
            .label(*name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(3)));
        for point in points {
            let (x, y) = chart.backend_coord(point);
            let style = (FONT, SMALL).into_font().color(&colour);
            // Above the point, unless another one is there.
            let below = lines.iter().flat_map(|(_, points)| points).any(|other| {
                let (beside, above) = chart.backend_coord(other);
                beside == x && (1..24).contains(&(y - above))
            });
            let (vertical, away) = if below { (VPos::Top, 6) } else { (VPos::Bottom, -6) };
            let style = style.pos(Pos::new(HPos::Center, vertical));
            write(area, &figure(point.1), (x, y + away), &style)?;
        }
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .background_style(WHITE.mix(0.85))
        .border_style(BLACK.mix(0.2))
        .label_font((FONT, SMALL))
        .draw()?;
    Ok(())
}

/// Writes at a place of the whole sheet.
fn write(area: &Area<'_>, text: &str, (x, y): (i32, i32), style: &TextStyle<'_>) -> Drawn {
    let (left, top) = area.get_base_pixel();
    area.draw(&Text::new(text.to_owned(), (x - left, y - top), style.clone()))?;
    Ok(())
}

/// `1 k`, `8 M`, `0.5`
fn short(value: f64) -> String {
    let units = [(1e9, " G"), (1e6, " M"), (1e3, " k")];
    let (divisor, unit) =
        units.into_iter().find(|(size, _)| value.abs() >= *size).unwrap_or((1.0, ""));
    let scaled = value / divisor;
    if (scaled - scaled.round()).abs() < 1e-9 {
        format!("{scaled:.0}{unit}")
    } else {
        format!("{scaled:.1}{unit}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_numbers_are_short() {
        let shown = [0.0, 0.5, 8.0, 1000.0, 2500.0, 8e6, 1e9].map(short);
        assert_eq!(shown, ["0", "0.5", "8", "1 k", "2.5 k", "8 M", "1 G"]);
    }

    #[test]
    fn a_chart_of_nothing_is_drawn_all_the_same() {
        for chart in [
            Chart::Bars { series: vec![""], groups: vec![("a", vec![None])] },
            Chart::Lines { lines: vec![("a", Vec::new())] },
        ] {
            let sheet =
                Sheet { metric: "cost", case: "none", unit: "ns", note: String::new(), chart };
            assert!(svg(&sheet).unwrap().contains("cost: none"));
        }
    }
}
