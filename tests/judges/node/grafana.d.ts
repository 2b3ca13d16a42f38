/** A dashboard as it stands in JSON, put together from the types that Grafana publishes of itself. */

import type { Dashboard, FieldConfig, Panel, RowPanel } from "@grafana/schema";
import type { Options as StatOptions } from "@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen";
import type {
  FieldConfig as SeriesField,
  Options as SeriesOptions,
} from "@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen";

/** What a type is in JSON: an enumeration is its value there. */
type Plain<T> = T extends string
  ? `${T}`
  : T extends number
    ? number
    : T extends (infer One)[]
      ? Plain<One>[]
      : T extends object
        ? { [K in keyof T]: Plain<T[K]> }
        : T;

/** A query; the published types do not have that of Prometheus. */
type Query = {
  refId: string;
  datasource: { type: "prometheus"; uid: string };
  expr: string;
  legendFormat: string;
  instant: boolean;
  range: boolean;
  exemplar: boolean;
};

/** A panel of one kind, with that kind's options; it has a title, a description and queries. */
type Of<Kind, Options, Custom> = Omit<Panel, "type" | "options" | "fieldConfig" | "targets"> & {
  type: Kind;
  title: string;
  description: string;
  options: Options;
  fieldConfig: { defaults: Omit<FieldConfig, "custom"> & { unit: string; custom?: Custom }; overrides: [] };
  targets: [Query, ...Query[]];
};

type Known = Of<"stat", Partial<StatOptions>, never> | Of<"timeseries", SeriesOptions, SeriesField> | RowPanel;

export type Shown = Plain<Omit<Dashboard, "panels"> & { panels: Known[] }>;
