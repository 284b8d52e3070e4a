package wasip1

import "context"

func sockGetAddrInfo(ctx context.Context, p *Process, m memory, a []uint64) Errno { return errnoAIFAIL }
