#version 450
#extension GL_GOOGLE_include_directive : require
#define UNARY (p.factor * v)
#include "elementwise.glsl"
