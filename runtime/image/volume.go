package image

import "context"

// noModuleError says that an image holds nothing that can be started.
type noModuleError struct{ error }

func (e *noModuleError) Unwrap() error { return e.error }

type volumeKey struct{}

// forVolume has images be looked at as volumes.
func forVolume(ctx context.Context) context.Context {
	return context.WithValue(ctx, volumeKey{}, true)
}

// VolumeRoot finds the image that ref names, which Ensure has had present, and
// returns its files as Root does.
func (s *Service) VolumeRoot(ctx context.Context, ref, copies string) (Image, *Root, error) {
	ctx = forVolume(ctx)
	img, c, err := s.lookup(ctx, ref)
	if err != nil {
		return Image{}, nil, err
	}
	if c == nil {
		return Image{}, nil, &Error{Reason: ReasonErrImagePull, Message: s.absent(ref)}
	}
	r, err := s.Root(ctx, img, copies)
	return img, r, err
}
