/* Files are little-endian, and blocks, heads and trailers are read in place, as the machine has them:
   a build for another order would write another format under the same version. */
#pragma once
#if !defined(__BYTE_ORDER__) || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "kvstore builds for little-endian machines only"
#endif
