//! Figures as bars, in SVG.

use std::error::Error;
use std::path::Path;

use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;

use super::Peer;
use crate::table::thousands;

/// A picture of one table.
pub(super) struct Plot<'a> {
    pub(super) title: &'a str,
    /// What the bars measure.
    pub(super) unit: &'a str,
    pub(super) digits: usize,
    /// Groups of bars.
    pub(super) rows: Vec<&'a str>,
    /// The bars of each group, with a value for each row.
    pub(super) peers: Vec<(Peer, Vec<Option<f64>>)>,
}

const SIZE: (u32, u32) = (960, 400);
/// Of the place on the right where the bars are named.
const LEGEND_WIDTH: u32 = 170;
/// Beyond this between the longest bar and the shortest one, lengths are logarithms: else one slow peer
/// makes all others look alike.
const LINEAR_MAX: f64 = 20.0;
/// The part of a group's place that its bars take.
const GROUP_WIDTH: f64 = 0.84;

impl Plot<'_> {
    /// Draws it.
    pub(super) fn draw(&self, path: &Path) -> Result<(), Box<dyn Error>> {
        let values = || self.peers.iter().flat_map(|(_, values)| values.iter().flatten().copied());
        let most = values().fold(0.0, f64::max);
        let least = values().filter(|&value| value > 0.0).fold(f64::INFINITY, f64::min);
        if most <= 0.0 {
            return Ok(());
        }
        let area = SVGBackend::new(path, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let logarithmic = LINEAR_MAX < most / least;
        let title = format!(
            "{}: {}{}",
            self.title,
            self.unit,
            if logarithmic { " (logarithmic)" } else { "" }
        );
        let area = area.titled(&title, ("sans-serif", 18))?;
        let (area, legend) = area.split_horizontally(SIZE.0 - LEGEND_WIDTH);
        for (index, (peer, _)) in self.peers.iter().enumerate() {
            let y = 30 + 22 * index as i32;
            legend.draw(&Rectangle::new([(4, y), (16, y + 12)], color(*peer).filled()))?;
            legend.draw(&Text::new(peer.title(), (22, y + 1), ("sans-serif", 13).into_font()))?;
        }
        let columns = 0.0..self.rows.len() as f64;
        if logarithmic {
            let floor = least / 2.0;
            self.chart(&area, columns, (floor..most * 2.0).log_scale(), floor)?;
        } else {
            self.chart(&area, columns, 0.0..most * 1.12, 0.0)?;
        }
        area.present()?;
        Ok(())
    }

    fn chart<Y>(
        &self,
        area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
        columns: std::ops::Range<f64>,
        values: Y,
        floor: f64,
    ) -> Result<(), Box<dyn Error>>
    where
        Y: AsRangedCoord<Value = f64>,
        Y::CoordDescType: ValueFormatter<f64>,
    {
        let mut chart = ChartBuilder::on(area)
            .margin(12)
            .x_label_area_size(28)
            .y_label_area_size(70)
            .build_cartesian_2d(columns, values)?;
        let label = |value: &f64| number(*value, 0);
        chart
            .configure_mesh()
            .disable_x_mesh()
            .x_labels(0)
            .y_label_formatter(&label)
            .label_style(("sans-serif", 12))
            .draw()?;
        let width = GROUP_WIDTH / self.peers.len() as f64;
        for (index, (peer, values)) in self.peers.iter().enumerate() {
            let color = color(*peer);
            let left =
                move |row: usize| row as f64 + (1.0 - GROUP_WIDTH) / 2.0 + index as f64 * width;
            let bars = values.iter().enumerate().filter_map(|(row, value)| {
                let corners = [(left(row), floor), (left(row) + width * 0.92, (*value)?)];
                Some(Rectangle::new(corners, color.filled()))
            });
            chart.draw_series(bars)?;
            let style = ("sans-serif", 11).into_font().color(&BLACK);
            let centred = style.pos(text_anchor());
            let texts = values.iter().enumerate().filter_map(|(row, value)| {
                let at = (left(row) + width * 0.46, (*value)?);
                Some(Text::new(number((*value)?, self.digits), at, centred.clone()))
            });
            chart.draw_series(texts)?;
        }
        let style = ("sans-serif", 13).into_font().color(&BLACK).pos(text_anchor());
        for (row, label) in self.rows.iter().enumerate() {
            let (x, y) = chart.backend_coord(&(row as f64 + 0.5, floor));
            // One counts from the top of the picture, the other from below the title.
            let y = y + 22 - area.get_pixel_range().1.start;
            area.draw(&Text::new((*label).to_owned(), (x, y), style.clone()))?;
        }
        Ok(())
    }
}

/// Above the point, in the middle.
fn text_anchor() -> plotters::style::text_anchor::Pos {
    use plotters::style::text_anchor::{HPos, Pos, VPos};
    Pos::new(HPos::Center, VPos::Bottom)
}

/// As a person reads it: three or four digits, or `digits` after the point where it is small.
pub(super) fn number(value: f64, digits: usize) -> String {
    match value.abs() {
        0.0..10.0 if value.fract() != 0.0 => format!("{value:.*}", digits.max(1)),
        10.0..100.0 if value.fract() != 0.0 => format!("{value:.*}", digits.min(1)),
        _ => thousands(value),
    }
}

/// The same for a peer in every plot.
fn color(peer: Peer) -> RGBColor {
    match peer {
        Peer::Warren => RGBColor(0xd9, 0x5f, 0x02),
        Peer::Uring => RGBColor(0xa6, 0x3c, 0x06),
        Peer::Protocol => RGBColor(0xf2, 0xa9, 0x57),
        Peer::Corosensei => RGBColor(0x9e, 0x9e, 0x9e),
        Peer::Tokio => RGBColor(0x1f, 0x5f, 0xa8),
        Peer::TokioMulti => RGBColor(0x7f, 0xb1, 0xde),
        Peer::May => RGBColor(0x8e, 0x5e, 0xa8),
        Peer::Twisted => RGBColor(0x4d, 0x9a, 0x4d),
        Peer::Uvloop => RGBColor(0x8e, 0x5e, 0xa8),
        Peer::Process => RGBColor(0x7a, 0x5c, 0x4a),
        Peer::Thread => RGBColor(0x8e, 0x5e, 0xa8),
        Peer::Select => RGBColor(0xa9, 0xc7, 0xe8),
        Peer::Poll => RGBColor(0x7f, 0xb1, 0xde),
        Peer::Epoll => RGBColor(0x1f, 0x5f, 0xa8),
        Peer::Reactor => RGBColor(0xf2, 0xa9, 0x57),
        Peer::Fibers => RGBColor(0xd9, 0x5f, 0x02),
        Peer::Gevent => RGBColor(0x4d, 0x9a, 0x4d),
        Peer::Go => RGBColor(0x2f, 0xb5, 0xb5),
    }
}
