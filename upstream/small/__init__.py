"""The first contribution: SymmMiner and SymmSynthesizer alone, written for PML."""
