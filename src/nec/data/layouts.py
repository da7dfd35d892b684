"""How the covers of a scene are arranged: one function per class, all from the same colours."""

from collections.abc import Callable

import numpy as np

from nec.data.landscape import (
    band,
    blob,
    countryside,
    courts,
    extras,
    fill_water,
    houses,
    junction,
    meadow,
    parcels,
    road,
    roof_details,
    slabs,
    tanks,
    traffic,
    whole,
    winding,
    woods,
)
from nec.data.spectra import ROOFS, mixed
from nec.data.terrain import Canvas, Cover


def lake(canvas: Canvas) -> None:
    """Still water with a closed shore."""
    countryside(canvas)
    rng = canvas.rng
    shore = blob(canvas, canvas.point(0.25), rng.uniform(0.3, 0.8) * canvas.radius_m, 0.4)
    fill_water(canvas, shore, rng.uniform(0, 6))
    canvas.plant(band(canvas, -shore, 2, 14) * rng.uniform(0, 0.8), 8, canvas.palette.leaves[0])


def river(canvas: Canvas) -> None:
    """A band of water that bends from one side to another."""
    countryside(canvas)
    rng = canvas.rng
    along, across = winding(canvas, rng.uniform(0.15, 0.45))
    width = rng.uniform(8, 38) * (1 + 0.2 * canvas.warp_u) + 2 * canvas.stands
    fill_water(canvas, width - np.abs(across), rng.uniform(0, 8))
    banks = band(canvas, np.abs(across) - width, 3, rng.uniform(8, 25))
    canvas.plant(banks * rng.uniform(0, 0.9), 8, canvas.palette.leaves[1])
    if rng.random() < 0.3:
        road(canvas, along - rng.uniform(-60, 60), rng.uniform(3, 5))


def coast(canvas: Canvas) -> None:
    """Open water on one side, with surf and a beach."""
    countryside(canvas)
    rng = canvas.rng
    _, across = winding(canvas, rng.uniform(0.05, 0.2))
    sea = across + rng.uniform(-0.6, 0.3) * canvas.radius_m + 3 * canvas.stands
    beach, sand = rng.uniform(3, 20), canvas.palette.sand
    canvas.paint(canvas.soft(sea + beach), Cover.BARE, sand, 0.06)
    fill_water(canvas, sea, 0)
    shallow = np.exp(-np.clip(sea, 0, None) / rng.uniform(6, 30)) * (sea > 0) * 0.5
    canvas.reflectance += shallow * (0.6 * sand[:, None, None] - canvas.reflectance)
    period = rng.uniform(12, 30)
    crests = np.clip(np.sin(2 * np.pi * sea / period + 1.5 * canvas.warp_u) - 0.75, 0, 1) * 4
    surf = crests * (sea > -1) * np.exp(-np.clip(sea, 0, None) / (1.5 * period))
    surf = surf * np.clip(0.6 + 0.8 * canvas.mottle, 0, 1) * rng.uniform(0.2, 1)
    canvas.reflectance += surf * (0.5 - canvas.reflectance)


def forest(canvas: Canvas) -> None:
    """Closed canopy with a few clearings."""
    rng = canvas.rng
    meadow(canvas)
    closed = np.clip(1.5 + rng.uniform(0.3, 1.2) + canvas.stands, 0, 1)
    woods(canvas, closed)
    extras(canvas, track=0.4, pond=0.15, houses=0.1)


def cropland(canvas: Canvas) -> None:
    """Parcels with rows and borders."""
    parcels(canvas, canvas.rng.uniform(45, 110), canvas.rng.uniform(35, 90))
    extras(canvas, track=0.4, pond=0.1, houses=0.2, trees=0.5)


def orchard(canvas: Canvas) -> None:
    """Trees in rows, block by block."""
    rng = canvas.rng
    countryside(canvas)
    u, v = canvas.frame(rng.uniform(0, np.pi), rng.uniform(0, 6))
    blocks = canvas.cells(u, v, rng.uniform(80, 170), rng.uniform(70, 130), 0.3)
    planted = rng.random(blocks.count) < rng.uniform(0.6, 1)
    inside = canvas.soft(blocks.edge - 3) * planted[blocks.index]
    soil, grass = canvas.palette.soil, canvas.palette.grass
    ground = soil + rng.random((blocks.count, 1)) * (grass - soil)
    floor = Cover.BARE if rng.random() < 0.5 else Cover.GRASS
    canvas.paint(inside, floor, ground.T[:, blocks.index])
    pitch = rng.uniform(7, 11)
    rows = canvas.cells(u, v, pitch * rng.uniform(0.75, 1), pitch)
    leaves = canvas.palette.leaves[0]
    clear = (inside > 0.9).astype(np.float32)
    canvas.plant(clear * rng.uniform(0.88, 1), pitch, leaves, rows, 0.8)
    extras(canvas, track=0.4, pond=0.1, houses=0.25)


def dense_settlement(canvas: Canvas) -> None:
    """Streets with buildings side by side."""
    rng, palette = canvas.rng, canvas.palette
    meadow(canvas)
    u, v = canvas.frame(rng.uniform(0, np.pi), rng.uniform(0, 5))
    blocks = canvas.cells(u, v, rng.uniform(60, 120), rng.uniform(42, 70), 0.25)
    plots = blocks.inset(rng.uniform(3, 4.5))
    yards = (palette.soil, palette.paving)[rng.integers(2)]
    ground = palette.grass + rng.uniform(0, 0.9) * (yards - palette.grass)
    canvas.paint(canvas.soft(plots.edge), Cover.GRASS, ground, 0.2)
    canvas.paint(canvas.soft(-plots.edge), Cover.PAVED, palette.paving, 0.06)
    (houses, slabs, courts)[rng.choice(3, p=[0.45, 0.25, 0.3])](canvas, plots, rng.uniform(11, 17))
    traffic(canvas, blocks.u, blocks.v, canvas.soft(-plots.edge - 1), 0.12)


def sparse_settlement(canvas: Canvas) -> None:
    """Single houses with gardens along a country road."""
    rng = canvas.rng
    countryside(canvas)
    along, across = winding(canvas, rng.uniform(0.02, 0.12))
    lots = canvas.cells(along, across, rng.uniform(26, 40), rng.uniform(28, 40), 0.25)
    near = np.exp(-((across / rng.uniform(50, 130)) ** 2))
    half = rng.uniform(2.5, 3.5)
    beside = whole(lots, np.abs(across) > half)
    settled = beside & (rng.random(lots.count) < 0.85 * lots.mean(near))
    garden = canvas.soft(lots.edge - 1) * settled[lots.index]
    canvas.paint(garden, Cover.GRASS, canvas.palette.grass * rng.uniform(0.8, 1.1))
    canvas.plant(garden * rng.uniform(0.15, 0.6), 7, canvas.palette.leaves[1])
    canvas.build(lots, settled, (4.5, 8), (3, 6), canvas.palette.roofs, gabled=True)
    road(canvas, across, half)
    extras(canvas, track=0.3, trees=0.4)


def industry(canvas: Canvas) -> None:
    """Large flat roofs, yards, containers."""
    rng = canvas.rng
    countryside(canvas)
    u, v = canvas.frame(rng.uniform(0, np.pi))
    lots = canvas.cells(u, v, rng.uniform(80, 130), rng.uniform(60, 100), 0.3)
    used = rng.random(lots.count) < rng.uniform(0.65, 0.95)
    yard = canvas.soft(lots.edge - 2) * used[lots.index]
    soil, paving = canvas.palette.soil, canvas.palette.paving
    surface = paving + np.clip(rng.uniform(-1.5, 1, (lots.count, 1)), 0, 1) * (soil - paving)
    canvas.paint(yard, Cover.PAVED, surface.T[:, lots.index], 0.12)
    roofs, halls = canvas.palette.roofs, used & (rng.random(lots.count) < 0.85)
    canvas.build(lots.inset(6), halls, (16, 45), (6, 13), roofs, gabled=False)
    roof_details(canvas, lots)
    if rng.random() < 0.4:
        tanks(canvas, u, v, (yard > 0.9) & (canvas.height == 0))
    slots = canvas.cells(u, v, rng.uniform(7, 13), rng.uniform(4, 6))
    free = whole(slots, (yard > 0.9) & (canvas.height == 0))
    stacked = free & (rng.random(slots.count) < 0.45 * slots.mean(np.clip(canvas.stands, 0, 1)))
    goods = mixed(rng, np.vstack([ROOFS, np.diag([0.5, 0.5, 0.5, 0.5])]), 6)
    canvas.build(slots, stacked, (1.5, 6), (2, 4), goods, gabled=False)
    road(canvas, lots.edge, rng.uniform(3, 4.5))


def highway(canvas: Canvas) -> None:
    """Two carriageways, often with a junction."""
    rng = canvas.rng
    countryside(canvas)
    along, across = winding(canvas, rng.uniform(0, 0.1))
    across = across + rng.uniform(-0.3, 0.3) * canvas.radius_m
    gap, half = rng.uniform(2, 5), rng.uniform(5, 7)
    verge = canvas.soft(gap + 2 * half + rng.uniform(5, 14) - np.abs(across))
    canvas.paint(verge, Cover.GRASS, canvas.palette.grass * 1.1, 0.15)
    if rng.random() < 0.65:
        junction(canvas, along, across, gap + 2 * half)
    middle = np.abs(np.abs(across) - gap - half)
    canvas.paint(canvas.soft(half - middle), Cover.PAVED, canvas.palette.paving, 0.04)
    lines = np.maximum(canvas.soft(0.3 - np.abs(middle - half + 1)), 0.5 * (middle < 0.6))
    canvas.reflectance += 0.35 * lines * (0.5 - canvas.reflectance)
    traffic(canvas, along, across, canvas.soft(half - 1 - middle), 0.12)


def quarry(canvas: Canvas) -> None:
    """A pit with terraces, tracks and heaps."""
    rng = canvas.rng
    countryside(canvas)
    pit = blob(canvas, canvas.point(0.3), rng.uniform(0.45, 1.0) * canvas.radius_m, 0.3)
    terrace, step = rng.uniform(12, 24), rng.uniform(4, 9)
    level = np.floor(np.clip(pit, 0, 4.99 * terrace) / terrace)
    rock = canvas.palette.sand * rng.uniform(0.85, 1.3, (5, 1))
    canvas.paint(canvas.soft(pit), Cover.BARE, rock[level.astype(int)].transpose(2, 0, 1), 0.2)
    canvas.height = np.where(pit > 0, step * (4 - level), canvas.height + 4 * step)
    heaps = canvas.cells(*canvas.frame(rng.uniform(0, np.pi), 8), 28, 28, 0.3)
    here = rng.random(heaps.count) < 0.35 * heaps.mean(pit > 5)
    cone = np.clip(9 - np.hypot(heaps.u, heaps.v), 0, None) * here[heaps.index]
    shade = rng.uniform(0.6, 1.4, heaps.count)[heaps.index]
    canvas.paint(
        canvas.soft(cone - 1), Cover.BARE, rock[0][:, None, None] * shade, 0.15, canvas.height
    )
    canvas.height += 0.8 * cone
    if rng.random() < 0.4:
        fill_water(canvas, pit - rng.uniform(3, 4) * terrace, 0)
    _, across = winding(canvas, 0.25)
    dusty = canvas.soft(rng.uniform(3, 5) - np.abs(across)) * (canvas.cover != Cover.WATER)
    canvas.paint(dusty, Cover.BARE, canvas.palette.sand * 1.2, 0.05, canvas.height)


def golf_course(canvas: Canvas) -> None:
    """Mown fairways, greens and bunkers between trees."""
    rng = canvas.rng
    meadow(canvas)
    lawn = canvas.palette.grass * np.array([1.05, 1.3, 1.0, 1.3])
    angle = rng.uniform(0, np.pi)
    u, v = canvas.frame(angle, rng.uniform(6, 14))
    holes = canvas.cells(u, v, rng.uniform(130, 220), rng.uniform(48, 70), 0.2)
    length = np.clip(np.abs(holes.u) - holes.half_u + 26, 0, None)
    fairway = holes.half_v - rng.uniform(11, 16) - np.hypot(length, holes.v)
    canvas.plant(canvas.soft(-fairway - 4) * rng.uniform(0.35, 0.9), 8, canvas.palette.leaves[0])
    mown = 1 + 0.06 * np.sign(np.sin(holes.u * rng.uniform(0.6, 0.9)))
    canvas.paint(canvas.soft(fairway), Cover.GRASS, lawn[:, None, None] * mown, 0.04)
    tip = np.hypot(np.abs(holes.u) - holes.half_u + 30, holes.v * 1.3)
    canvas.paint(canvas.soft(8 - tip), Cover.GRASS, lawn * 1.2, 0.02)
    spots = canvas.cells(u, v, 15, 15, 0.3)
    chance = spots.mean(np.exp(-(((tip - 14) / 5) ** 2)))
    trap = (rng.random(spots.count) < 0.75 * chance)[spots.index]
    bunker = 5 + 1.2 * canvas.warp_v - np.hypot(spots.u, 1.5 * spots.v)
    canvas.paint(canvas.soft(bunker) * trap, Cover.BARE, canvas.palette.sand * 1.1, 0.03)
    extras(canvas, pond=0.4, track=0.3)


LAYOUTS: tuple[Callable[[Canvas], None], ...] = (
    lake,
    river,
    coast,
    forest,
    cropland,
    orchard,
    dense_settlement,
    sparse_settlement,
    industry,
    highway,
    quarry,
    golf_course,
)
