from __future__ import annotations
class Native: pass
def compiled(block, plan, layout, device):
    return None
