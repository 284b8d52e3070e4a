package runtime

import (
	"context"

	"github.com/wasmpod/wasmpod/runtime/image"
)

// Precompile compiles the entry module of an image into the cache of the data
// directory, so that its next start finds it there.
func Precompile(ctx context.Context, cfg Config, images *image.Service, img image.Image) error {
	engine, err := newEngine(ctx, cfg, nil)
	if err != nil {
		return err
	}
	defer engine.Close(context.WithoutCancel(ctx))
	m, err := engine.Compile(ctx, img.Module, func() ([]byte, error) { return images.Module(ctx, img.Module) })
	if err != nil {
		return err
	}
	m.Release()
	return nil
}
