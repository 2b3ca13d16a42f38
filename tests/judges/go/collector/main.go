// An OpenTelemetry collector: the official service and OTLP receiver, and an exporter that writes every signal as it came
// to standard output, one JSON object of the protocol a line. Where it listens is for its configuration to say.
package main

import (
	"context"
	"log"
	"os"
	"sync"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/confmap/provider/fileprovider"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/exporter"
	"go.opentelemetry.io/collector/otelcol"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/collector/receiver"
	"go.opentelemetry.io/collector/receiver/otlpreceiver"
	"go.opentelemetry.io/collector/service/telemetry/otelconftelemetry"
)

// lines writes whole lines, whoever writes.
type lines struct{ sync.Mutex }

func (out *lines) write(line []byte, err error) error {
	if err != nil {
		return err
	}
	out.Lock()
	defer out.Unlock()
	_, err = os.Stdout.Write(append(line, '\n'))
	return err
}

// sink is an exporter of one signal; it has nothing to start and nothing to flush.
type sink struct {
	component.StartFunc
	component.ShutdownFunc
}

func (sink) Capabilities() consumer.Capabilities { return consumer.Capabilities{} }

type traces struct {
	sink
	out *lines
}

func (to traces) ConsumeTraces(_ context.Context, data ptrace.Traces) error {
	return to.out.write((&ptrace.JSONMarshaler{}).MarshalTraces(data))
}

type metrics struct {
	sink
	out *lines
}

func (to metrics) ConsumeMetrics(_ context.Context, data pmetric.Metrics) error {
	return to.out.write((&pmetric.JSONMarshaler{}).MarshalMetrics(data))
}

func stdout() exporter.Factory {
	out := &lines{}
	return exporter.NewFactory(
		component.MustNewType("stdout"),
		func() component.Config { return &struct{}{} },
		exporter.WithTraces(
			func(context.Context, exporter.Settings, component.Config) (exporter.Traces, error) {
				return traces{out: out}, nil
			}, component.StabilityLevelStable),
		exporter.WithMetrics(
			func(context.Context, exporter.Settings, component.Config) (exporter.Metrics, error) {
				return metrics{out: out}, nil
			}, component.StabilityLevelStable),
	)
}

func factories() (otelcol.Factories, error) {
	receivers, err := otelcol.MakeFactoryMap[receiver.Factory](otlpreceiver.NewFactory())
	if err != nil {
		return otelcol.Factories{}, err
	}
	exporters, err := otelcol.MakeFactoryMap[exporter.Factory](stdout())
	if err != nil {
		return otelcol.Factories{}, err
	}
	return otelcol.Factories{
		Receivers: receivers,
		Exporters: exporters,
		Telemetry: otelconftelemetry.NewFactory(),
	}, nil
}

func main() {
	files := confmap.ResolverSettings{
		ProviderFactories: []confmap.ProviderFactory{fileprovider.NewFactory()},
		DefaultScheme:     "file",
	}
	settings := otelcol.CollectorSettings{
		BuildInfo:              component.BuildInfo{Command: "collector", Description: "judge of telemetry", Version: "1"},
		Factories:              factories,
		ConfigProviderSettings: otelcol.ConfigProviderSettings{ResolverSettings: files},
	}
	if err := otelcol.NewCommand(settings).Execute(); err != nil {
		log.Fatal(err)
	}
}
